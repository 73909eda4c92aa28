"""The best columns of each row, in an order that nothing but the numbers decides."""

from __future__ import annotations

import numpy as np


def top_ids(values: np.ndarray, count: int) -> np.ndarray:
    """int64 (n, count): the columns of the highest values (n, columns) of each row, best first, ties to the lowest.

    All columns where there are no more than count. No NaN.
    """
    rows, columns = values.shape
    if count >= columns:
        return np.argsort(-values, axis=1, kind="stable")
    last = np.partition(values, columns - count, axis=1)[:, columns - count, None]
    above, equal = values > last, values == last
    room = count - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
    ids = np.nonzero(chosen)[1].reshape(rows, count)
    order = np.argsort(-np.take_along_axis(values, ids, axis=1), axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)
