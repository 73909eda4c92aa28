"""Clipped gradients, noise, and what they give away."""
