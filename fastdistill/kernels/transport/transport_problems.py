"""Transport problems as C reads them, and what C does with them: Sinkhorn's iteration, and the rows of a plan."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdistill.kernels.boundary import aligned_bytes, bits, const, ffi, lib, pointer
from fastdistill.kernels.transport.points import METRICS

if TYPE_CHECKING:
    from typing_extensions import Self

_SLICE = 20_000_000  # nanoseconds of one call: Ctrl-C waits no longer than this and a step
_TOGETHER = 1 << 26  # bytes of workspace of problems that are solved together
_ALONE = 1 << 23  # a problem of more bytes has all threads to itself


class TransportProblems:
    """Checked problems of n rows and m columns, or fewer; potentials and results of each are what the last call of C has left.

    Attributes
    ----------
    metric : str | None
        of points; None: costs are given
    places : dict[str, np.ndarray]
        cost (problems or 1, n, m), or x (problems or 1, n, d) and y (problems or 1, m, d), float32 or float64; of
        length 1 for "cosine"
    sizes : int64 (problems, 2)
        rows and columns that count
    a, b : float64 (problems, n), (problems, m)
        masses of total 1, as the places' dtype holds them
    totals : float64 (2, problems)
        of the masses before that
    taus : tuple[float, float]
        of rows and columns; inf: balanced
    threads : int
        1 or more
    phi : float64 (problems, n)
        potentials over epsilon, -inf where nothing is reached
    gamma : float64 (problems, m)
        potentials over epsilon, those that an iteration begins with
    epsilon : float64 (problems,)
    results : float64 (problems, 5)
        <cost, plan>, dual of rows, of columns, mass, marginal error: over a's total
    status : int32 (problems,)
        enum fd_transport_status
    """

    def __init__(
        self,
        metric: str | None,
        places: dict[str, np.ndarray],
        sizes: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        totals: np.ndarray,
        taus: tuple[float, float],
        threads: int,
    ) -> None:
        self.metric, self.places, self.sizes, self.threads = metric, places, sizes, threads
        self.a, self.b, self.totals, self.taus = a, b, totals, taus
        (self.count, self.n), self.m = a.shape, b.shape[1]
        self.dtype = next(iter(places.values())).dtype
        self.phi, self.gamma = np.zeros((self.count, self.n)), np.zeros((self.count, self.m))
        self.epsilon = np.ones(self.count)
        self.results, self.status = np.zeros((self.count, 5)), np.zeros(self.count, np.int32)

    def iterate(
        self, tolerance: np.ndarray, most: np.ndarray, iterations: np.ndarray, errors: np.ndarray | None
    ) -> Iterator[slice]:
        """Iterate on the problems that are FD_NOT_BEGUN, each from its gamma at its epsilon; after each call of C, which it is at.

        Parameters
        ----------
        tolerance : float64 (problems,)
            of the marginal error
        most : int64 (problems,)
            iterations
        iterations : int64 (problems,)
            written: how many there were
        errors : float64 (problems, most of them) or None
            written: the error after each, over a's total
        """
        native, keep = self._native(
            tolerance,
            max_iterations=most,
            most_iterations=int(most.max(initial=1)),
            iterations=iterations,
            errors=errors,
        )
        each = lib.fd_sinkhorn_workspace(native, 1, self.threads)
        together = 1 if each > _ALONE else min(self.count, max(self.threads, _TOGETHER // each))
        workspace = aligned_bytes(lib.fd_sinkhorn_workspace(native, together, self.threads))
        for first in range(0, self.count, together):
            these, left = slice(first, min(first + together, self.count)), 1
            while left:
                left = lib.fd_sinkhorn(native, first, these.stop - first, pointer(workspace), _SLICE, self.threads)
                yield these
        del keep

    def rows(self, kind: int, width: int, values: np.ndarray | None = None) -> np.ndarray:
        """What C computes of the rows of each plan, in the dtype of the places -> (problems, n, width).

        Parameters
        ----------
        kind : int
            FD_PLAN: the plan, width m; FD_PRODUCT: with values (problems, width, m padded to 16); FD_GRADIENT: of the
            places x, width d
        width : int
        values : np.ndarray, optional
        """
        out = np.zeros((self.count, self.n, width), self.dtype)
        native, keep = self._native(np.zeros(self.count))
        workspace = aligned_bytes(lib.fd_transport_rows_workspace(native, self.threads))
        for problem, (rows, _) in enumerate(self.sizes.tolist()):
            first, count = 0, 32
            given = const(None if values is None else values[problem])
            while first < rows:
                count, began = min(count, rows - first), time.perf_counter()
                lib.fd_transport_rows(
                    native, problem, first, count, kind, self.totals[0][problem], width, given,
                    pointer(out[problem, first : first + count]), pointer(workspace), self.threads,
                )  # fmt: skip
                first += count
                count *= 2 if time.perf_counter() - began < 0.01 else 1
        del keep
        return out

    def transposed(self) -> Self:
        """The same with rows and columns exchanged, for what is asked of the transposed plan."""
        other = copy.copy(self)
        other.n, other.m = self.m, self.n
        other.a, other.b = self.b, self.a
        other.phi, other.gamma = self.gamma, self.phi
        other.sizes, other.taus = np.ascontiguousarray(self.sizes[:, ::-1]), self.taus[::-1]
        if self.metric is None:
            other.places = {"cost": np.ascontiguousarray(self.places["cost"].swapaxes(1, 2))}
        else:
            other.places = {"x": self.places["y"], "y": self.places["x"]}
        return other

    def _native(self, tolerance: np.ndarray, **arrays: Any) -> tuple[Any, list[Any]]:
        """struct fd_transport, and what has to live as long."""
        a, b = self.totals
        arrays["constants"] = np.stack([self.epsilon, tolerance / a, np.log(b), b / a], -1)
        t = ffi.new("struct fd_transport *")
        t.metric = lib.FD_GIVEN if self.metric is None else METRICS[self.metric]
        t.n, t.m, t.tau = self.n, self.m, self.taus
        first, *others = self.places.values()
        t.bits = bits(first)
        if self.metric is None:
            t.cost, t.cost_step = const(first), _step(first)
        else:
            arrays["y"] = y = _groups(*others)
            t.d, t.x, t.x_step, t.y_step = first.shape[2], const(first), _step(first), _step(y)
        for name in ("sizes", "a", "b", "phi", "gamma", "results", "status"):
            setattr(t, name, pointer(getattr(self, name)))
        for name, value in arrays.items():
            setattr(t, name, value if isinstance(value, int) else pointer(value))
        return t, [*arrays.values()]


def _step(shared: np.ndarray) -> int:
    """How far it is from one problem's to the next; 0: they share it."""
    return 0 if len(shared) == 1 else math.prod(shared.shape[1:])


def _groups(points: np.ndarray) -> np.ndarray:
    """(problems, m, d) -> (problems, m / 16, d, 16), zeros at the end: coordinates in sequence, 16 points in the lanes."""
    count, m, d = points.shape
    padded = np.zeros((count, -(-m // 16) * 16, d), points.dtype)
    padded[:, :m] = points
    return np.ascontiguousarray(padded.reshape(count, padded.shape[1] // 16, 16, d).swapaxes(2, 3))
