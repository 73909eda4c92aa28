"""How hidden states of a text become one vector, under the names that sentence-transformers has for it.

Sums run row by row, in float32, so that a text's vector has the same bits in any batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cls(hidden: np.ndarray, skipped: int = 0) -> np.ndarray:
    """The first row's: (n, width) -> (width,), as all of these. The first `skipped` rows, a prompt's, take no part."""
    return hidden[skipped]


def lasttoken(hidden: np.ndarray, skipped: int = 0) -> np.ndarray:
    """The last row's."""
    return hidden[-1]


def max(hidden: np.ndarray, skipped: int = 0) -> np.ndarray:
    """The largest of each number."""
    return np.asarray(hidden[skipped:].max(axis=0))


def mean(hidden: np.ndarray, skipped: int = 0) -> np.ndarray:
    """The mean of each number."""
    return _sum(hidden[skipped:]) / np.float32(len(hidden) - skipped)


def mean_sqrt_len_tokens(hidden: np.ndarray, skipped: int = 0) -> np.ndarray:
    """Their sum over the square root of how many there are."""
    return _sum(hidden[skipped:]) / np.sqrt(np.float32(len(hidden) - skipped))


def weightedmean(hidden: np.ndarray, skipped: int = 0) -> np.ndarray:
    """The mean, row i (from 1, those that are skipped counted) with weight i."""
    weights = np.arange(skipped + 1, len(hidden) + 1, dtype=np.float32)[:, None]
    return _sum(hidden[skipped:] * weights) / _sum(weights)


def _sum(rows: np.ndarray) -> np.ndarray:
    """Row by row: NumPy sums the first axis of a contiguous array so."""
    return np.asarray(np.add.reduce(np.ascontiguousarray(rows), axis=0, dtype=np.float32))


# In the order in which sentence-transformers lays them side by side, where a folder asks for several.
POOLINGS: dict[str, Callable[..., np.ndarray]] = {
    function.__name__: function for function in (cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken)
}
