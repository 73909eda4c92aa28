"""Exact transport on a line: points meet in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import check_array, check_number
from fastdistill.errors import ArgumentError, NotFiniteError


def wasserstein_1d(
    x: np.ndarray, y: np.ndarray, a: np.ndarray | None = None, b: np.ndarray | None = None, *, p: float = 1.0
) -> np.ndarray | np.float64:
    """W_p^p between masses a at x and b at y: the least sum of mass times |x_i - y_j|^p.

    For a convex cost no plan beats the one that keeps the order, so it is an integral over quantiles, in O(n log n).

    Parameters
    ----------
    x, y : float32 or float64 (..., n) and (..., m)
        in any order; leading dimensions broadcast
    a, b : float32 or float64 (..., n) and (..., m), optional
        masses; None: uniform, of total 1. Totals must agree to 1e-8, with float32 to 1e-5; b is then scaled to a's
    p : float, default 1.0
        1..1000; below 1 the cost is not convex

    Returns
    -------
    float64 (...)

    Raises
    ------
    ArgumentError
    NotFiniteError
        naming the array that holds a NaN or an infinity
    """
    p = check_number("p", p, 1, 1000)
    a, b = _uniform("x", x, a), _uniform("y", y, b)
    _check("x", x)
    _check("y", y)
    narrow = np.float32 in (_check("a", a), _check("b", b))
    for name, masses, points in (("a", a, x), ("b", b, y)):
        if masses.shape[-1] != points.shape[-1]:
            raise ArgumentError(f"{name} must have {points.shape[-1]} masses, one a point; got shape {masses.shape}")
        if (masses < 0).any():
            raise ArgumentError(f"{name} must hold no negative mass, got {masses.min()}")
    try:
        leading = np.broadcast_shapes(*(array.shape[:-1] for array in (x, y, a, b)))
    except ValueError:
        shapes = ", ".join(str(array.shape) for array in (x, y, a, b))
        raise ArgumentError(f"leading dimensions of x, y, a, b must broadcast, got {shapes}") from None

    x, a = _in_order(x, a, leading)
    y, b = _in_order(y, b, leading)
    a_total, b_total = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    apart = ~(np.abs(a_total - b_total) <= (1e-5 if narrow else 1e-8) * a_total) | ~(a_total > 0)
    if apart.any():
        raise ArgumentError(
            f"totals of a and b must agree and be above 0, got {a_total[apart][0]:.17g} and {b_total[apart][0]:.17g}"
        )
    # Between two neighbours of all cumulated masses, one point of x meets one of y.
    n, m = x.shape[-1], y.shape[-1]
    ends = np.concatenate([np.cumsum(a, axis=-1), np.cumsum(b * (a_total / b_total), axis=-1)], axis=-1)
    order = np.argsort(ends, axis=-1, kind="stable")
    width = np.diff(np.take_along_axis(ends, order, axis=-1), axis=-1, prepend=0)
    i = np.cumsum(order < n, axis=-1) - (order < n)  # how many points of x end before
    j = np.cumsum(order >= n, axis=-1) - (order >= n)
    here = np.take_along_axis(x, np.minimum(i, n - 1), axis=-1)
    there = np.take_along_axis(y, np.minimum(j, m - 1), axis=-1)  # past the last: what rounding left of the total
    return (width * np.abs(here - there) ** p).sum(axis=-1)


def _uniform(name: str, points: Any, masses: np.ndarray | None) -> np.ndarray:
    if masses is not None:
        return masses
    if not isinstance(points, np.ndarray) or points.ndim == 0 or points.shape[-1] == 0:
        raise ArgumentError(f"{name} must be a NumPy array of at least one point")
    return np.full(points.shape[-1], 1 / points.shape[-1])


def _check(name: str, array: Any) -> np.dtype:
    """The dtype of an array of finite floats, its last dimension not empty."""
    dtype = getattr(array, "dtype", np.dtype(np.float64))
    check_array(
        name, array, np.float32 if dtype == np.float32 else np.float64, (None,) * max(1, getattr(array, "ndim", 1))
    )
    if array.shape[-1] == 0:
        raise ArgumentError(f"{name} must have at least one point, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise NotFiniteError(f"{name} holds a NaN or an infinity")
    return dtype


def _in_order(points: np.ndarray, masses: np.ndarray, leading: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (*leading, n), points ascending."""
    points, masses = (
        np.broadcast_to(array, (*leading, array.shape[-1])).astype(np.float64) for array in (points, masses)
    )
    order = np.argsort(points, axis=-1, kind="stable")
    return np.take_along_axis(points, order, axis=-1), np.take_along_axis(masses, order, axis=-1)
