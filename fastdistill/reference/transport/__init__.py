"""Distances and entropic transport."""
