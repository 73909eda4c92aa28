"""What kernels over points share: metrics, checks, and how work is cut so that no call into C runs for long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastdistill.arguments import REAL, check_array, check_choice
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import bits, const, lib, pointer
from fastdistill.kernels.isa import isa

METRICS = {
    "sqeuclidean": lib.FD_SQEUCLIDEAN,
    "euclidean": lib.FD_EUCLIDEAN,
    "l1": lib.FD_L1,
    "cosine": lib.FD_COSINE,
}
# Multiplications and additions of one call into C: a few milliseconds on the vector levels, 50 at most.  A signal waits for its end.
_TERMS, _TERMS_IN_PLAIN_C = 1 << 27, 1 << 22


def terms_of_a_call() -> int:
    """How many terms one call into C may have, so that a signal does not wait."""
    return _TERMS_IN_PLAIN_C if isa() == "scalar" else _TERMS


def pieces(batch: int, rows: int, terms: int) -> Iterator[tuple[slice, slice]]:
    """Cut the rows of a batch, each of so many terms, into calls: of several problems, or of some rows of one."""
    most = max(1, terms_of_a_call() // terms)  # rows
    problems = max(1, most // rows)
    for first in range(0, batch, problems):
        for row in range(0, rows, max(most, 1) if problems == 1 else rows):
            yield slice(first, first + problems), slice(row, row + most) if problems == 1 else slice(0, rows)


def check_points(metric: Any, x: Any, y: Any) -> tuple[int, int, int, int]:
    """Refuse points that do not belong together; batch, n, m, d of x (..., n, d) and y (..., m, d)."""
    check_choice("metric", metric, METRICS)
    *leading, n, d = check_array("x", x, REAL, (..., "n", "d"))
    *_, m, _ = check_array("y", y, x.dtype.type, (*leading, "m", d), like="x")
    if 0 in (n, m, d):
        raise ArgumentError(f"x and y must have points and coordinates, got shapes {x.shape} and {y.shape}")
    return math.prod(leading), n, m, d


def check_finite(**arrays: np.ndarray) -> None:
    """Raise for the first of the arrays that holds a NaN or an infinity."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            at = ", ".join(str(int(index)) for index in np.unravel_index(int(np.isfinite(array).argmin()), array.shape))
            raise NotFiniteError(f"{name} holds a NaN or an infinity: {name}[{at}]")


def unit_points(name: str, x: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., d) scaled to length 1, and their lengths (...,), float64; a point of length 0 is refused."""
    unit, lengths = np.empty(x.shape, x.dtype), np.empty(x.shape[:-1])
    lib.fd_unit_rows(bits(x), lengths.size, x.shape[-1], const(x), pointer(unit), pointer(lengths), threads)
    if not np.isfinite(lengths).all():
        check_finite(**{name: x})
    if not lengths.all():
        where = ", ".join(map(str, np.argwhere(lengths == 0)[0]))
        raise ArgumentError(f"{name}[{where}] is zero: it has no cosine")
    return unit, lengths
