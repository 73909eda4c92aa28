"""Objectives of tokens that were drawn."""
