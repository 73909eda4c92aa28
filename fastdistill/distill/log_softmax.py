"""Log-probabilities of rows in float64, a block of rows at a time where a whole batch would not fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastdistill.errors import NotFiniteError

_ENTRIES = 1 << 22  # of a block: 32 MB of float64


def log_softmax(name: str, logits: np.ndarray, rows: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float64, as the logits: log softmax of rows / temperature; -inf is a ban, and stays.

    Parameters
    ----------
    name : str
        of the array, for the message
    logits : float32 or float64 (m, vocab)
    rows : int (m,)
        which rows of the array these are, for the message
    temperature : float, default 1.0

    Raises
    ------
    NotFiniteError
        naming the array and the row
    """
    top = refuse_rows_without_law(name, logits, rows).astype(np.float64)
    below = (logits - top) / temperature
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def refuse_rows_without_law(name: str, logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The largest logit of each row, (m, 1), where all rows have a softmax; else NotFiniteError."""
    top = logits.max(axis=1, keepdims=True)  # NaN where there is one
    if not np.isfinite(top).all():
        row = int(rows[np.argmin(np.isfinite(top[:, 0]))])
        raise NotFiniteError(f"{name}: row {row} holds a NaN or +inf, or nothing but -inf")
    return top


def blocks(rows: np.ndarray, vocab: int) -> Iterator[np.ndarray]:
    """The rows, a few at a time: so many that a block of them takes 32 MB in float64, and one at least."""
    count = max(1, _ENTRIES // max(1, vocab))
    for begin in range(0, len(rows), count):
        yield rows[begin : begin + count]
