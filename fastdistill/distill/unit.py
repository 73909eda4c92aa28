"""Rows divided by their lengths, and what a gradient by those is by the rows."""

from __future__ import annotations

import numpy as np


def unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of float64 (n, d): rows of length 1, and the lengths (n, 1). A row of zeros stays one, with a length of infinity.

    No square is too large or too small for a float.
    """
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    length = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    length[largest == 0] = np.inf
    return scaled / length, length * np.where(largest > 0, largest, 1)


def unit_gradient(by_units: np.ndarray, units: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The gradient by rows (n, d), of one by their `unit`s; 0 where a row is of zeros."""
    return (by_units - units * (units * by_units).sum(axis=1, keepdims=True)) / lengths
