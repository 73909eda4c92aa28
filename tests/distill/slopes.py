"""Derivatives by central differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 1e-5  # of numbers of size 1: differences err by STEP^2 and by 2^-52 / STEP


def slopes(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = STEP) -> np.ndarray:
    """The derivative of a number by each entry of a float64 array."""
    found = np.empty_like(at)
    for index in np.ndindex(at.shape):
        higher, lower = at.copy(), at.copy()
        higher[index] += step
        lower[index] -= step
        found[index] = (function(higher) - function(lower)) / (2 * step)
    return found
