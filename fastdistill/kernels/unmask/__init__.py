"""Masked diffusion: which positions a step fills."""
