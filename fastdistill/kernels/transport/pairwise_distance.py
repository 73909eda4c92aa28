"""Distances between all points of two sets."""

from __future__ import annotations

import numpy as np

from fastdistill.kernels.boundary import bits, const, lib, pointer
from fastdistill.kernels.threads import check_threads
from fastdistill.kernels.transport.points import METRICS, check_finite, check_points, pieces, unit_points


def pairwise_distance(
    x: np.ndarray, y: np.ndarray, metric: str = "sqeuclidean", *, threads: int | None = None
) -> np.ndarray:
    """The distance of each point of x to each point of y.

    Parameters
    ----------
    x, y : float32 or float64 (..., n, d) and (..., m, d)
        n, m, d >= 1, of one dtype and with equal leading dimensions
    metric : str, default "sqeuclidean"
        "sqeuclidean", the sum of (x - y)^2; "euclidean", its root; "l1", the sum of |x - y|; "cosine", 1 - x.y / (|x|
        |y|)
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    np.ndarray (..., n, m)
        of that dtype

    Raises
    ------
    ArgumentError
    NotFiniteError
        naming the array
    """
    batch, n, m, d = check_points(metric, x, y)
    threads = check_threads(threads)
    left, right = x, y
    if metric == "cosine":
        left, right = unit_points("x", x, threads)[0], unit_points("y", y, threads)[0]
    left, right = left.reshape(batch, n, d), right.reshape(batch, m, d)
    out = np.empty((batch, n, m), x.dtype)
    for problems, rows in pieces(batch, n, m * (d + 16)):  # a distance costs about 16 terms besides its own
        here, there, distances = left[problems, rows], right[problems], out[problems, rows]
        sizes = bits(x), len(here), here.shape[1], m, d
        workspace = np.empty(lib.fd_pairwise_distance_workspace(*sizes), np.uint8)
        status = lib.fd_pairwise_distance(
            sizes[0], METRICS[metric], *sizes[1:], const(here), const(there), pointer(distances), pointer(workspace), threads
        )  # fmt: skip
        if status != lib.FD_OK:
            check_finite(x=x, y=y)
    return out.reshape(*x.shape[:-1], m)
