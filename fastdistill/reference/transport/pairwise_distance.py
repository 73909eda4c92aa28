"""What `kernels.pairwise_distance` means."""

from __future__ import annotations

import numpy as np


def pairwise_distance(x, y, metric="sqeuclidean"):
    """The distance of each point of x (..., n, d) to each point of y (..., m, d): (..., n, m)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if metric == "cosine":
        x, y = (points / np.linalg.norm(points, axis=-1, keepdims=True) for points in (x, y))
        return 1 - x @ np.swapaxes(y, -1, -2)
    apart = x[..., :, None, :] - y[..., None, :, :]
    if metric == "l1":
        return np.abs(apart).sum(axis=-1)
    squares = (apart**2).sum(axis=-1)
    return np.sqrt(squares) if metric == "euclidean" else squares
