"""Entropic optimal transport: Sinkhorn's iteration over costs or over points, and what is asked of its plan."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import (
    aligned_bytes,
    check_array,
    check_flag,
    check_integer,
    check_number,
    ffi,
    lib,
    pointer,
)
from fastdistill.kernels.threads import check_threads

METRICS = {"sqeuclidean": "FD_SQEUCLIDEAN", "euclidean": "FD_EUCLIDEAN", "l1": "FD_L1", "cosine": "FD_COSINE"}
_STATUS = {"FD_CONVERGED": "converged", "FD_MAX_ITERATIONS": "max_iterations", "FD_INFEASIBLE": "infeasible"}
_SLICE = 20_000_000  # nanoseconds of one call: Ctrl-C waits no longer than this and a step
_TOGETHER = 1 << 26  # bytes of workspace of problems that are solved together
_ALONE = 1 << 23  # a problem of more bytes has all threads to itself
_DIGITS = 2.0**50  # of costs over epsilon: beyond, an exponent has no digits left
_SCALING_ITERATIONS, _SCALING_ERROR = (
    10,
    1e-2,
)  # of each epsilon on the way down: at most so many, or until this share of the mass


class Transport:
    """What `sinkhorn` found; of a batch, arrays with its leading dimensions (...), of one problem, scalars.

    value           float64 (...)              <cost, plan>
    entropic_value  float64 (...)              the dual objective: value + epsilon KL(plan | a x b), unbalanced with its penalties, where
                                               converged; never above the optimum
    potentials      f (..., n), g (..., m)     float64: plan = a b exp((f + g - cost) / epsilon); balanced ones with <f, a> = <g, b>;
                                               +inf where everything in reach is forbidden or without mass
    plan            (..., n, m)                in the dtype of the costs, computed when asked for
    gradient        of entropic_value: the plan, by the costs; (dx, dy), by points; computed when asked for
    iterations      int64 (...)
    marginal_error  float64 (...)              the larger of the two L1 distances between a marginal of the plan and the one wanted: a,
                                               or a exp(-f / tau) where unbalanced; measured on the plan of these potentials
    converged       bool (...)                 marginal_error <= tolerance
    status          str (...)                  "converged", "max_iterations" or "infeasible": forbidden pairs leave no plan; values are inf
    errors          float64 (..., iterations)  the marginal error after each, where history was asked for; NaN after a problem's last
    epsilon         float
    """

    def __init__(self, problems: _Problems, iterations: np.ndarray, errors: np.ndarray | None) -> None:
        p, self._problems = problems, problems
        totals, epsilon = p.totals, p.epsilon
        value, rows, columns, mass, error = p.results.T
        f, g = epsilon * (p.phi - np.log(totals[1])[:, None]), epsilon * p.gamma
        f[np.isneginf(p.phi)], g[np.isneginf(p.gamma)] = np.inf, np.inf
        for potentials, count in ((f, p.sizes[:, 0]), (g, p.sizes[:, 1])):
            potentials[np.arange(potentials.shape[1]) >= count[:, None]] = 0.0
        dual = epsilon * (totals[0] * rows + totals[1] * columns + totals[0] * (totals[1] - mass))
        possible = p.status != lib.FD_INFEASIBLE
        self.epsilon = epsilon
        self.value = p.shaped(np.where(possible, totals[0] * value, np.inf))
        self.entropic_value = p.shaped(np.where(possible, dual, np.inf))
        self.potentials = p.shaped(f), p.shaped(g)
        self.iterations = p.shaped(iterations)
        self.marginal_error = p.shaped(totals[0] * error)
        self.converged = p.shaped(p.status == lib.FD_CONVERGED)
        names = {getattr(lib, code): name for code, name in _STATUS.items()}
        self.status = p.shaped(np.array([names[int(code)] for code in p.status]))
        self.errors = None if errors is None else p.shaped(errors)

    def __repr__(self) -> str:
        shape = (*self._problems.leading, self._problems.n, self._problems.m)
        return (
            f"Transport({'x'.join(map(str, shape))}, value={self.value}, status={self.status}, iterations={self.iterations}, "
            f"marginal_error={self.marginal_error})"
        )

    @cached_property
    def plan(self) -> np.ndarray:
        p = self._problems
        return p.rows(lib.FD_PLAN, (p.n, p.m))

    @cached_property
    def gradient(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        p = self._problems
        return self.plan if p.metric is None else (p.pull(), p.swapped().pull())

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Products of the plan with values (..., m, k) in its dtype -> (..., n, k); the plan is not stored."""
        return self._problems.apply(values)

    def apply_transpose(self, values: np.ndarray) -> np.ndarray:
        """Products of the transposed plan with values (..., n, k) in its dtype -> (..., m, k)."""
        return self._problems.swapped().apply(values)


def sinkhorn(
    a: np.ndarray | None,
    b: np.ndarray | None,
    cost: np.ndarray | None = None,
    *,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    metric: str = "sqeuclidean",
    epsilon: float,
    max_iterations: int = 1000,
    tolerance: float = 1e-6,
    unbalanced: tuple[float, float] | float | None = None,
    epsilon_scaling: float | None = None,
    warm_start: Transport | tuple[np.ndarray, np.ndarray] | None = None,
    dtype: Any = None,
    lengths: tuple[Any, Any] | None = None,
    history: bool = False,
    progress: Callable[[int, float], None] | None = None,
    threads: int | None = None,
) -> Transport:
    """min <cost, P> + epsilon KL(P | a x b) over plans P with the marginals a and b, KL(P | Q) = sum P log(P / Q) - P + Q.

    a, b             float32 or float64 (..., n), (..., m): masses of equal totals, 0 or more; None: uniform, of total 1
    cost             float32 or float64 (..., n, m), C-contiguous; +inf forbids a pair
    x, y             in its place, points (..., n, d), (..., m, d) of one dtype: costs are computed on the way and never stored
    metric           of points: "sqeuclidean", sum (x - y)^2; "euclidean"; "l1"; "cosine", 1 - x.y / |x||y|
    epsilon          above 0, in the unit of the costs
    max_iterations   1 or more; an iteration updates f, then g
    tolerance        of the marginal error, in the unit of the masses
    unbalanced       (tau_a, tau_b), or one for both: marginals may differ, at the price tau_a KL(P 1 | a) + tau_b KL(P' 1 | b);
                     inf: that one may not
    epsilon_scaling  in (0, 1): begin with epsilon at the largest cost and let it fall by this factor
    warm_start       a Transport or (f, g) to begin from; g counts
    dtype            float32 or float64 to compute in; that of the costs or points, if None
    lengths          rows (...) and columns (...) that count in each problem of a ragged batch; what is beyond is not read
    history          keep the marginal error after each iteration
    progress         called now and then with the iterations done and the marginal error, of the farthest and the worst running problem
    returns          Transport; the same bits for any threads and instruction set, and for a problem alone or in a batch
    raises           ArgumentError, NotFiniteError
    source           Cuturi 2013; Schmitzer 2019 (absorption into the kernel); Chizat et al. 2018 (unbalanced); see docs/kernels/sinkhorn.md

    Leading dimensions broadcast.  Points without mass take no part in the plan; their potentials are what the others imply.
    """
    epsilon = check_number("epsilon", epsilon, np.finfo(np.float64).tiny, np.finfo(np.float64).max)
    max_iterations = check_integer("max_iterations", max_iterations, 1, 2**31 - 1)
    tolerance = check_number("tolerance", tolerance, 0, np.inf)
    history, threads = check_flag("history", history), check_threads(threads)
    problems = _Problems(a, b, cost, x, y, metric, dtype, lengths, _taus(unbalanced))
    problems.start(warm_start, epsilon)
    if epsilon_scaling is None:
        schedule = [epsilon]
    else:
        factor = check_number("epsilon_scaling", epsilon_scaling, np.finfo(np.float64).tiny, np.nextafter(1.0, 0.0))
        schedule = [*_falling(problems.largest_cost(), epsilon, factor), epsilon]
    iterations = np.zeros(problems.count, np.int64)
    errors = np.full((problems.count, max_iterations), np.nan) if history else None
    for step in schedule:
        last, left = step == epsilon, int(max_iterations - iterations.max())
        if left == 0 or (not last and left == 1):
            continue
        problems.solve(
            step,
            left if last else min(_SCALING_ITERATIONS, left - 1),
            np.full(problems.count, tolerance) if last else _SCALING_ERROR * problems.totals[0],
            iterations,
            errors,
            progress,
            threads,
        )
    if problems.metric is None:
        problems.look_for_infeasible()
    return Transport(problems, iterations, None if errors is None else errors[:, : iterations.max()])


def _taus(unbalanced: Any) -> tuple[float, float]:
    if unbalanced is None:
        return np.inf, np.inf
    taus = unbalanced if isinstance(unbalanced, (tuple, list)) else (unbalanced, unbalanced)
    if len(taus) != 2:
        raise ArgumentError(f"unbalanced must be a number or two, (tau_a, tau_b), got {len(taus)}")
    tiny = np.finfo(np.float64).tiny
    return check_number("unbalanced[0]", taus[0], tiny, np.inf), check_number("unbalanced[1]", taus[1], tiny, np.inf)


def _falling(top: float, epsilon: float, factor: float) -> Iterator[float]:
    while top > epsilon:
        yield top
        top *= factor


class _Problems:
    """A batch, checked, as C reads it: masses over their total, costs or points, potentials, results."""

    def __init__(
        self, a: Any, b: Any, cost: Any, x: Any, y: Any, metric: Any, dtype: Any, lengths: Any, taus: Any
    ) -> None:
        self.taus = taus
        if (cost is None) == (x is None and y is None):
            raise ArgumentError(
                "give either cost or the points x and y, " + ("both came" if cost is not None else "neither came")
            )
        self.metric = None if x is None and y is None else _metric(metric)
        places = {"cost": cost} if self.metric is None else {"x": x, "y": y}
        for name, array in places.items():
            _check_real(name, array, 2)
        first = next(iter(places.values()))
        self.dtype = first.dtype if dtype is None else _dtype(dtype)
        for name, array in places.items():
            if dtype is None and array.dtype != first.dtype:
                raise ArgumentError(
                    f"{name} must have dtype {first.dtype.name} as {next(iter(places))} has, got {array.dtype.name}"
                )
            if not array.flags.c_contiguous:
                raise ArgumentError(f"{name} must be C-contiguous; pass np.ascontiguousarray({name})")
        if self.metric is None:
            self.n, self.m = cost.shape[-2:]
        else:
            self.n, self.m = x.shape[-2], y.shape[-2]
            if x.shape[-1] != y.shape[-1] or x.shape[-1] == 0:
                raise ArgumentError(
                    f"x and y must have the same number of coordinates, 1 or more, got {x.shape[-1]} and {y.shape[-1]}"
                )
        if self.n == 0 or self.m == 0:
            raise ArgumentError(f"a transport needs one point or more on each side, got {self.n} and {self.m}")
        masses = {"a": (a, self.n), "b": (b, self.m)}
        for name, (array, count) in masses.items():
            if array is not None:
                _check_real(name, array, 1)
                if array.shape[-1] != count:
                    raise ArgumentError(f"{name} must have {count} masses, as many as the costs, got {array.shape[-1]}")
        shapes = [array.shape[:-2] for array in places.values()] + [
            array.shape[:-1] for array in (a, b) if array is not None
        ]
        try:
            self.leading = np.broadcast_shapes(*shapes)
        except ValueError:
            raise ArgumentError(f"leading dimensions must broadcast, got {', '.join(map(str, shapes))}") from None
        self.count = math.prod(self.leading)
        self.sizes = _sizes(lengths, self.leading, self.n, self.m)
        self.a, self.b = (
            _masses(name, array, count, self, side) for side, (name, (array, count)) in enumerate(masses.items())
        )
        self.totals = np.array([self.a.sum(-1), self.b.sum(-1)]).reshape(2, self.count)
        self._check_totals()
        self.a, self.b = (
            (array / total[:, None]).astype(self.dtype).astype(np.float64)
            for array, total in zip((self.a, self.b), self.totals, strict=True)
        )
        self.places = {name: self._batch(array) for name, array in places.items()}
        self.norms: dict[str, np.ndarray] = {}
        if self.metric is not None:
            self._check_points()
        self.phi, self.gamma = np.zeros((self.count, self.n)), np.zeros((self.count, self.m))
        self.results, self.status = np.zeros((self.count, 5)), np.zeros(self.count, np.int32)
        self.epsilon = np.nan

    def shaped(self, array: np.ndarray) -> Any:
        """(problems, ...) -> (..., ...), of one problem a Python scalar."""
        array = array.reshape((*self.leading, *array.shape[1:]))
        return array if array.ndim else array.item()

    def _batch(self, array: np.ndarray) -> np.ndarray:
        """(problems or 1, size, size): what all share stays one."""
        leading, size = array.shape[:-2], array.shape[-2:]
        if math.prod(leading) > 1 and math.prod(leading) != self.count:
            array = np.broadcast_to(array, (*self.leading, *size))
        return np.ascontiguousarray(array, self.dtype).reshape(-1, *size)

    def _check_totals(self) -> None:
        for name, total in zip("ab", self.totals, strict=True):
            if not (total > 0).all():
                raise ArgumentError(f"{name} must have mass, got a total of 0{self._where(total <= 0)}")
        if self.taus != (np.inf, np.inf):
            return
        slack = 1e-8 if self.dtype == np.float64 else 1e-5
        apart = np.abs(self.totals[0] - self.totals[1]) > slack * self.totals.max(0)
        if apart.any():
            one, other = self.totals[:, np.argmax(apart)]
            raise ArgumentError(
                f"a and b must have the same total, got {one:.10g} and {other:.10g}{self._where(apart)}; "
                "scale them, or let masses differ with unbalanced=(tau_a, tau_b)"
            )
        self.totals[1] = self.totals[0]

    def _where(self, wrong: np.ndarray) -> str:
        """Which problem of a batch."""
        return f" in problem {np.unravel_index(int(np.argmax(wrong)), self.leading)}" if self.leading else ""

    def _check_points(self) -> None:
        for side, (name, points) in enumerate(self.places.items()):
            counts = self.sizes[:, side].max() if len(points) == 1 else self.sizes[:, side]
            inside = np.arange(points.shape[1]) < np.reshape(counts, (-1, 1))
            if not inside.all():
                points = np.where(inside[..., None], points, points[:, :1])  # beyond: any point that is there
            if not np.isfinite(points).all():
                raise NotFiniteError(f"{name} holds a NaN or an infinity")
            if self.metric == "cosine":
                largest = np.abs(points).max(-1, keepdims=True)
                if not largest.all():
                    raise ArgumentError(f"{name} holds a point at 0, which has no direction: metric cosine needs one")
                norm = np.linalg.norm((points / largest).astype(np.float64), axis=-1, keepdims=True)
                self.norms[name] = norm * largest
                points = (points / largest / norm).astype(self.dtype)
            self.places[name] = points
        bound = self.largest_cost()
        if not bound <= np.finfo(self.dtype).max / 4:
            raise ArgumentError(f"x and y lie too far apart for distances in {self.dtype.name}: up to {bound:g}")

    def largest_cost(self) -> float:
        """Of finite ones; of points an upper bound, from the box around them."""
        if self.metric is None:
            (cost,) = self.places.values()
            finite = np.isfinite(cost)
            return float(np.abs(cost, where=finite, out=np.zeros_like(cost)).max())
        if self.metric == "cosine":
            return 2.0
        x, y = (points.reshape(-1, points.shape[-1]).astype(np.float64) for points in self.places.values())
        spans = np.maximum(x.max(0), y.max(0)) - np.minimum(x.min(0), y.min(0))
        with np.errstate(over="ignore"):
            return float(
                {"sqeuclidean": (spans**2).sum(), "euclidean": np.linalg.norm(spans), "l1": spans.sum()}[self.metric]
            )

    def start(self, warm_start: Any, epsilon: float) -> None:
        self.epsilon = epsilon
        if warm_start is None:
            return
        pair = warm_start.potentials if isinstance(warm_start, Transport) else warm_start
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ArgumentError(
                f"warm_start must be a Transport or the potentials (f, g), got {type(warm_start).__name__}"
            )
        _check_real("warm_start[1]", pair[1], 1)
        try:
            g = np.broadcast_to(pair[1], (*self.leading, self.m)).astype(np.float64).reshape(self.count, self.m)
        except ValueError:
            raise ArgumentError(
                f"warm_start[1] must have shape {(*self.leading, self.m)}, got {pair[1].shape}"
            ) from None
        if np.isnan(g).any() or np.isneginf(g).any():
            raise NotFiniteError("warm_start[1] holds a NaN or -inf")
        self.gamma = np.where(np.isposinf(g), -np.inf, g / epsilon)

    def solve(
        self,
        epsilon: float,
        most: int,
        tolerance: np.ndarray,
        iterations: np.ndarray,
        errors: Any,
        progress: Any,
        threads: int,
    ) -> None:
        """At most so many iterations of every problem at this epsilon, from its gamma; adds to iterations and errors."""
        if self.metric is not None and self.largest_cost() > _DIGITS * epsilon:
            self._refuse_epsilon(epsilon)
        self.gamma *= self.epsilon / epsilon
        self.epsilon = epsilon
        self.status[:] = lib.FD_NOT_BEGUN
        done, found = (
            np.zeros(self.count, np.int64),
            np.full((self.count, most), np.nan) if errors is not None else None,
        )
        constants = np.stack(
            [tolerance / self.totals[0], np.log(self.totals[1]), np.log(self.totals[1] / self.totals[0])], -1
        )
        native, keep = self.native(max_iterations=most, constants=constants, iterations=done, errors=found)
        each = lib.fd_sinkhorn_workspace(native, 1, threads)
        together = 1 if each > _ALONE else min(self.count, max(threads, _TOGETHER // each))
        workspace = aligned_bytes(lib.fd_sinkhorn_workspace(native, together, threads))
        for first in range(0, self.count, together):
            count = min(together, self.count - first)
            while lib.fd_sinkhorn(native, first, count, pointer(workspace), _SLICE, threads):
                if progress is not None:
                    running = slice(first, first + count)
                    progress(
                        int((iterations + done)[running].max()),
                        float((self.totals[0] * self.results[:, 4])[running].max()),
                    )
        del keep
        self._check_status(epsilon)
        if errors is not None:
            for row, offset, count, new in zip(errors, iterations, done, found, strict=True):
                row[offset : offset + count] = new[:count]
            errors_scale = self.totals[0][:, None]
            spans = (np.arange(errors.shape[1]) >= iterations[:, None]) & (
                np.arange(errors.shape[1]) < (iterations + done)[:, None]
            )
            np.multiply(errors, errors_scale, out=errors, where=spans)
        iterations += done

    def _check_status(self, epsilon: float) -> None:
        if (self.status == lib.FD_COST_NOT_FINITE).any():
            raise NotFiniteError(f"cost holds a NaN or -inf{self._where(self.status == lib.FD_COST_NOT_FINITE)}")
        if (self.status == lib.FD_EPSILON_TOO_SMALL).any():
            self._refuse_epsilon(epsilon)

    def _refuse_epsilon(self, epsilon: float) -> None:
        raise ArgumentError(
            f"epsilon must be at least 2^-50 of the largest cost, {self.largest_cost():g}, got {epsilon:g}"
        )

    def native(self, **arrays: Any) -> tuple[Any, list[Any]]:
        """struct fd_transport, and what has to live as long."""
        t = ffi.new("struct fd_transport *")
        keep = [*arrays.values()]
        t.bits, t.metric = (
            8 * self.dtype.itemsize,
            lib.FD_GIVEN if self.metric is None else getattr(lib, METRICS[self.metric]),
        )
        t.problems, t.n, t.m = self.count, self.n, self.m
        t.epsilon = self.epsilon
        for side, tau in enumerate(self.taus):
            t.kappa[side] = self.epsilon / tau
        if self.metric is None:
            (cost,) = self.places.values()
            t.cost, t.cost_step = pointer(cost), 0 if len(cost) == 1 else self.n * self.m
        else:
            x, y = self.places.values()
            turned = np.zeros(
                (len(y), y.shape[2], -(-self.m // 16) * 16), self.dtype
            )  # coordinates in sequence, points in lanes
            turned[:, :, : self.m] = y.swapaxes(1, 2)
            keep.append(turned)
            t.d, t.x, t.y = x.shape[2], pointer(x), pointer(turned)
            t.x_step, t.y_step = 0 if len(x) == 1 else x[0].size, 0 if len(y) == 1 else turned[0].size
        t.sizes, t.a, t.b = pointer(self.sizes), pointer(self.a), pointer(self.b)
        t.phi, t.gamma, t.results, t.status = (
            pointer(self.phi),
            pointer(self.gamma),
            pointer(self.results),
            pointer(self.status),
        )
        for name, value in arrays.items():
            setattr(t, name, value if isinstance(value, int) else pointer(value))
        return t, keep

    def rows(self, kind: int, shape: tuple[int, ...], values: np.ndarray | None = None) -> np.ndarray:
        """What C computes of the rows of each plan -> (..., *shape), some rows a call."""
        out = np.zeros((self.count, *shape), self.dtype)
        threads = check_threads(None)
        native, keep = self.native()
        workspace = aligned_bytes(lib.fd_transport_rows_workspace(native, threads))
        for problem, (rows, _) in enumerate(self.sizes.tolist()):
            first, count = 0, 32
            given = pointer(None if values is None else values[problem])
            while first < rows:
                count, began = min(count, rows - first), time.perf_counter()
                lib.fd_transport_rows(
                    native, problem, first, count, kind, self.totals[0][problem], shape[1], given,
                    pointer(out[problem, first : first + count]), pointer(workspace), threads,
                )  # fmt: skip
                first += count
                count *= 2 if time.perf_counter() - began < 0.01 else 1
        del keep
        return out.reshape(*self.leading, *shape)

    def apply(self, values: Any) -> np.ndarray:
        _check_real("values", values, 2)
        if values.dtype != self.dtype or values.shape[-2] != self.m:
            raise ArgumentError(
                f"values must be {self.dtype.name} (..., {self.m}, any), got {values.dtype.name} {values.shape}"
            )
        width = values.shape[-1]
        turned = np.zeros((self.count, width, -(-self.m // 16) * 16), self.dtype)
        turned[:, :, : self.m] = (
            np.broadcast_to(values, (*self.leading, self.m, width)).reshape(-1, self.m, width).swapaxes(1, 2)
        )
        return self.rows(lib.FD_PRODUCT, (self.n, width), turned)

    def pull(self) -> np.ndarray:
        """Derivatives of the entropic value by x, (..., n, d)."""
        gradient = self.rows(lib.FD_GRADIENT, (self.n, self.places["x"].shape[2]))
        if self.metric == "cosine":
            unit, norm = self.places["x"], self.norms["x"]
            flat = gradient.reshape(self.count, *gradient.shape[-2:])
            along = np.einsum("pnd,pnd->pn", flat, np.broadcast_to(unit, flat.shape))[..., None]
            gradient = ((flat - unit * along) / norm).astype(self.dtype).reshape(gradient.shape)
        return gradient

    def swapped(self) -> _Problems:
        """The same with rows and columns exchanged, for what is asked of the transposed plan."""
        other = object.__new__(_Problems)
        other.__dict__.update(self.__dict__)
        other.n, other.m, other.a, other.b, other.phi, other.gamma = (
            self.m,
            self.n,
            self.b,
            self.a,
            self.gamma,
            self.phi,
        )
        other.sizes, other.taus = np.ascontiguousarray(self.sizes[:, ::-1]), self.taus[::-1]
        if self.metric is None:
            other.places = {"cost": np.ascontiguousarray(self.places["cost"].swapaxes(1, 2))}
        else:
            other.places = {"x": self.places["y"], "y": self.places["x"]}
            other.norms = {{"x": "y", "y": "x"}[name]: norm for name, norm in self.norms.items()}
        return other

    def look_for_infeasible(self) -> None:
        """Say so where forbidden pairs leave no plan: some rows have more mass than all columns that they may reach (Hall's condition).

        The iteration drives the potentials of such rows apart from the others', so they come first by potential: no sets are searched.
        """
        if self.taus != (np.inf, np.inf):
            return
        (cost,) = self.places.values()
        for problem in np.flatnonzero(self.status == lib.FD_MAX_ITERATIONS):
            n, m = self.sizes[problem]
            allowed = cost[problem % len(cost), :n, :m] < np.inf
            if allowed.all():
                continue
            a, b = self.a[problem, :n], self.b[problem, :m]
            order = np.argsort(-np.where(a > 0, self.phi[problem, :n], -np.inf), kind="stable")
            reached = np.where(
                allowed[order].any(0), allowed[order].argmax(0), n
            )  # the first row that may reach a column
            there = np.cumsum(np.bincount(reached, b, n + 1))[:n]
            if (np.cumsum(a[order]) > there + (1e-9 if self.dtype == np.float64 else 1e-5)).any():
                self.status[problem] = lib.FD_INFEASIBLE


def _metric(metric: Any) -> str:
    if metric not in list(METRICS):
        raise ArgumentError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return metric


def _dtype(dtype: Any) -> np.dtype:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ArgumentError(f"dtype must be float32 or float64, got {dtype!r}")
    return found


def _check_real(name: str, array: Any, dimensions: int) -> None:
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"{name} must be a NumPy array of float32 or float64, got {type(array).__name__}")
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ArgumentError(f"{name} must have dtype float32 or float64, got {array.dtype.name}")
    if array.ndim < dimensions:
        raise ArgumentError(f"{name} must have {dimensions} dimensions or more, got shape {array.shape}")


def _sizes(lengths: Any, leading: tuple[int, ...], n: int, m: int) -> np.ndarray:
    """int64 (problems, 2)"""
    sizes = np.empty((math.prod(leading), 2), np.int64)
    sizes[:] = n, m
    if lengths is None:
        return sizes
    if not isinstance(lengths, (tuple, list)) or len(lengths) != 2:
        raise ArgumentError(f"lengths must be two arrays, of rows and of columns, got {lengths!r:.80}")
    for side, most in enumerate((n, m)):
        counts = np.asarray(lengths[side])
        if counts.dtype.kind not in "iu" or counts.shape not in (leading, ()):
            raise ArgumentError(f"lengths[{side}] must be integers of shape {leading}, got {lengths[side]!r:.80}")
        if counts.size and not (counts.min() >= 1 and counts.max() <= most):
            raise ArgumentError(f"lengths[{side}] must lie in 1..{most}, got {counts.min()}..{counts.max()}")
        sizes[:, side] = counts.ravel()
    return sizes


def _masses(name: str, array: np.ndarray | None, count: int, problems: _Problems, side: int) -> np.ndarray:
    """float64 (problems, count), 0 beyond a problem's length."""
    inside = np.arange(count) < problems.sizes[:, side, None]
    if array is None:
        return inside / problems.sizes[:, side, None]
    masses = np.broadcast_to(array, (*problems.leading, count)).astype(np.float64).reshape(problems.count, count)
    masses = np.where(inside, masses, 0.0)
    if not np.isfinite(masses).all():
        raise NotFiniteError(f"{name} holds a NaN or an infinity")
    if (masses < 0).any():
        raise ArgumentError(f"{name} must be 0 or more, got {masses.min():g}")
    return masses
