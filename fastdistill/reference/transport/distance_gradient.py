"""What `kernels.distance_gradient` means."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.transport.pairwise_distance import pairwise_distance


def distance_gradient(weights, x, y, metric="sqeuclidean"):
    """The sum over j of weights_ij dc(x_i, y_j)/dx_i: (..., n, d).  0 at a kink."""
    weights, x, y = (array.astype(np.float64) for array in (weights, x, y))
    if metric == "cosine":
        length = np.linalg.norm(x, axis=-1, keepdims=True)
        x, y = x / length, y / np.linalg.norm(y, axis=-1, keepdims=True)
        by_unit = -(weights @ y)
        return (by_unit - (x * by_unit).sum(axis=-1, keepdims=True) * x) / length
    apart = x[..., :, None, :] - y[..., None, :, :]  # (..., n, m, d)
    if metric == "l1":
        slopes = np.sign(apart)
    elif metric == "euclidean":
        distance = pairwise_distance(x, y, metric)[..., None]
        slopes = np.divide(apart, distance, out=np.zeros_like(apart), where=distance > 0)
    else:
        slopes = 2 * apart
    return (weights[..., None] * slopes).sum(axis=-2)
