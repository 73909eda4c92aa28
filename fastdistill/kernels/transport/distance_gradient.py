"""The gradient of a weighted sum of distances."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.kernels.boundary import bits, const, lib, pointer
from fastdistill.kernels.threads import check_threads
from fastdistill.kernels.transport.pairwise_distance import pairwise_distance
from fastdistill.kernels.transport.points import METRICS, check_finite, check_points, pieces, unit_points


def distance_gradient(
    weights: np.ndarray, x: np.ndarray, y: np.ndarray, metric: str = "sqeuclidean", *, threads: int | None = None
) -> np.ndarray:
    """The gradient of the sum of weights_ij c(x_i, y_j) by x, with c as in `pairwise_distance`.

    Parameters
    ----------
    weights : np.ndarray (..., n, m)
        of the dtype of x
    x, y : float32 or float64 (..., n, d) and (..., m, d)
        n, m, d >= 1, of one dtype and with equal leading dimensions
    metric : str, default "sqeuclidean"
        as in `pairwise_distance`
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    np.ndarray (..., n, d)
        sum over j of weights_ij dc(x_i, y_j)/dx_i, which counts as 0 at a kink (l1: x_ik = y_jk; euclidean: x_i = y_j)

    Raises
    ------
    ArgumentError
    NotFiniteError
        naming the array
    """
    batch, n, m, d = check_points(metric, x, y)
    check_array("weights", weights, x.dtype.type, (*x.shape[:-1], m), like="x")
    threads = check_threads(threads)
    left, right, factors = x, y, weights
    lengths: np.ndarray | None = None
    if metric == "cosine":
        left, lengths = unit_points("x", x, threads)
        right, lengths = unit_points("y", y, threads)[0], lengths.reshape(batch, n)
    if metric == "euclidean":
        distances = pairwise_distance(x, y, metric, threads=threads)
        check_finite(weights=weights)
        factors = np.divide(weights, distances, out=np.zeros_like(weights), where=distances > 0)
    left, right, factors = left.reshape(batch, n, d), right.reshape(batch, m, d), factors.reshape(batch, n, m)
    out = np.empty((batch, n, d), x.dtype)
    for problems, rows in pieces(batch, n, m * (d + 16)):
        here, there, mine, gradient = (
            left[problems, rows],
            right[problems],
            factors[problems, rows],
            out[problems, rows],
        )
        workspace = np.empty(lib.fd_distance_gradient_workspace(bits(x), len(here), m, d), np.uint8)
        status = lib.fd_distance_gradient(
            bits(x), METRICS[metric], len(here), here.shape[1], m, d, const(mine), const(here), const(there),
            const(None if lengths is None else lengths[problems, rows]), pointer(gradient), pointer(workspace), threads,
        )  # fmt: skip
        if status != lib.FD_OK:
            check_finite(weights=weights, x=x, y=y)
    return out.reshape(x.shape)
