"""Optimisers and what they need."""
