"""A batch of transport problems as its caller gives it, checked and made ready for C."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_choice, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import lib
from fastdistill.kernels.transport.points import METRICS, unit_points
from fastdistill.kernels.transport.transport_problems import TransportProblems
from fastdistill.messages import short

if TYPE_CHECKING:
    from typing_extensions import Self

_DIGITS = 2.0**50  # of costs over epsilon: beyond, an exponent has no digits left


class TransportBatch(TransportProblems):
    """The problems of a batch of any leading dimensions, ragged or not.

    What is given is kept: plan and gradient are computed from it when they are asked for.

    Attributes
    ----------
    leading
        the batch's dimensions
    agreement
        how far apart totals of a and b may be, as a share
    wanted_epsilon : float
        the last of all stages
    lengths : dict[str, np.ndarray]
        for "cosine", what points x (problems or 1, n) and y (problems or 1, m) had, float64
    """

    def __init__(
        self,
        a: Any,
        b: Any,
        cost: Any,
        x: Any,
        y: Any,
        metric: Any,
        dtype: Any,
        lengths: Any,
        unbalanced: Any,
        threads: int,
    ) -> None:
        self.taus = _taus(unbalanced)
        places = self._places(cost, x, y, metric, dtype)
        self.n, self.m = (cost.shape if self.metric is None else (x.shape[-2], y.shape[-2]))[-2:]
        if 0 in (self.n, self.m):
            raise ArgumentError(f"a transport needs one point or more on each side, got {self.n} and {self.m}")
        given = [
            (name, array, count) for name, array, count in (("a", a, self.n), ("b", b, self.m)) if array is not None
        ]
        for name, array, count in given:
            check_array(name, array, REAL, (..., name))
            if array.shape[-1] != count:
                raise ArgumentError(f"{name} must have {count} masses, as many as the costs, got {array.shape[-1]}")
        shapes = [array.shape[:-2] for array in places.values()] + [array.shape[:-1] for _, array, _ in given]
        try:
            self.leading = np.broadcast_shapes(*shapes)
        except ValueError:
            raise ArgumentError(f"leading dimensions must broadcast, got {', '.join(map(str, shapes))}") from None
        self.count = math.prod(self.leading)
        self.sizes = _sizes(lengths, self.leading, self.n, self.m)
        masses = [self._masses("a", a, self.n, 0), self._masses("b", b, self.m, 1)]
        self.totals = np.stack([_sum(mass) for mass in masses])
        narrow = np.float32 in (
            self.dtype,
            *(array.dtype for _, array, _ in given),
            *(array.dtype for array in places.values()),
        )
        self.agreement = 1e-5 if narrow else 1e-8  # of totals: what the coarsest dtype leaves of equal ones
        self._check_totals()
        a_share, b_share = (
            (mass / total[:, None]).astype(self.dtype).astype(np.float64)
            for mass, total in zip(masses, self.totals, strict=True)
        )
        places = {name: self._batch(name, array) for name, array in places.items()}
        super().__init__(self.metric, places, self.sizes, a_share, b_share, self.totals, self.taus, threads)
        self.lengths: dict[str, np.ndarray] = {}  # of points, for the cosine
        if self.metric is not None:
            self._check_points()

    def _places(self, cost: Any, x: Any, y: Any, metric: Any, dtype: Any) -> dict[str, np.ndarray]:
        """Costs or points, checked; sets metric, None where costs are given, and dtype."""
        if (cost is None) == (x is None and y is None):
            both = "both came" if cost is not None else "neither came"
            raise ArgumentError(f"give either cost or the points x and y, {both}")
        if cost is None:
            check_choice("metric", metric, METRICS)
        self.metric = metric if cost is None else None
        places = {"cost": cost} if self.metric is None else {"x": x, "y": y}
        for name, array in places.items():
            axes = ("n", "m") if name == "cost" else ("m" if name == "y" else "n", "d")
            check_array(name, array, REAL, (..., *axes))
        first, *_ = places.values()
        if self.metric is not None:
            if dtype is None and x.dtype != y.dtype:
                raise ArgumentError(f"y must have dtype {x.dtype.name} as x has, got {y.dtype.name}")
            if x.shape[-1] != y.shape[-1] or x.shape[-1] == 0:
                coordinates = f"{x.shape[-1]} and {y.shape[-1]}"
                raise ArgumentError(f"x and y must have the same number of coordinates, 1 or more, got {coordinates}")
        self.dtype = first.dtype if dtype is None else _dtype(dtype)
        return places

    def _masses(self, name: str, array: np.ndarray | None, count: int, side: int) -> np.ndarray:
        """float64 (problems, count), 0 beyond a problem's length."""
        inside = np.arange(count) < self.sizes[:, side, None]
        if array is None:
            return inside / self.sizes[:, side, None]
        masses = np.broadcast_to(array, (*self.leading, count)).astype(np.float64).reshape(self.count, count)
        masses = np.where(inside, masses, 0.0)
        if not np.isfinite(masses).all():
            raise NotFiniteError(f"{name} holds a NaN or an infinity")
        if (masses < 0).any():
            raise ArgumentError(f"{name} must be 0 or more, got {masses.min():g}")
        return masses

    def shaped(self, array: np.ndarray) -> Any:
        """(problems, ...) -> (..., ...), of one problem a Python scalar."""
        array = array.reshape((*self.leading, *array.shape[1:]))
        return array if array.ndim else array.item()

    def _batch(self, name: str, array: np.ndarray) -> np.ndarray:
        """(problems or 1, size, size): what all share stays one."""
        leading, size = array.shape[:-2], array.shape[-2:]
        if math.prod(leading) > 1 and math.prod(leading) != self.count:
            array = np.broadcast_to(array, (*self.leading, *size))
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(array, self.dtype)
        if cast.dtype != array.dtype and (np.isinf(cast) & np.isfinite(array)).any():
            raise ArgumentError(
                f"{name} holds numbers beyond {self.dtype.name}: up to {np.abs(array[np.isfinite(array)]).max():g}"
            )
        return cast.reshape(math.prod(cast.shape[:-2]), *size)

    def _check_totals(self) -> None:
        most = min(1e150, float(np.finfo(self.dtype).max) / 4)  # its square is a number, and the plan one of the dtype
        for name, total in zip("ab", self.totals, strict=True):
            if not (total > 0).all():
                raise ArgumentError(f"{name} must have mass, got a total of 0{self._where(total <= 0)}")
            if not (total <= most).all():
                raise ArgumentError(f"{name} must have a total of {most:g} or less, got {total.max():g}")
        if (wrong := self.totals.max(0) * 1e-150 > self.totals.min(0)).any():
            raise ArgumentError(f"totals of a and b must lie within 1e150 of each other{self._where(wrong)}")
        if self.taus != (np.inf, np.inf):
            return
        apart = np.abs(self.totals[0] - self.totals[1]) > self.agreement * self.totals.max(0)
        if apart.any():
            one, other = self.totals[:, np.argmax(apart)]
            raise ArgumentError(
                f"a and b must have the same total, within {self.agreement:g} of it, got {one:.10g} and {other:.10g}{self._where(apart)}; "
                "scale them, or let masses differ with unbalanced=(tau_a, tau_b)"
            )
        self.totals[1] = self.totals[0]

    def _where(self, wrong: np.ndarray) -> str:
        """Which problem of a batch."""
        at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), self.leading)))
        return f" in problem {at}" if self.leading else ""

    def _check_points(self) -> None:
        for side, (name, points) in enumerate(self.places.items()):
            inside = self._inside(points, side, 1)
            if not inside.all():
                points = np.where(inside[..., None], points, points[:, :1])  # beyond: any point that is there
            if not np.isfinite(points).all():
                raise NotFiniteError(f"{name} holds a NaN or an infinity")
            if self.metric == "cosine":
                points, self.lengths[name] = unit_points(name, points, self.threads)
            self.places[name] = points
        bound = self.largest_costs().max(initial=0.0)
        if not bound <= np.finfo(self.dtype).max / 4:
            raise ArgumentError(f"x and y lie too far apart for distances in {self.dtype.name}: up to {bound:g}")

    def largest_costs(self) -> np.ndarray:
        """(problems,) of finite ones; of points upper bounds, from the boxes around them."""
        if self.metric is None:
            (cost,) = self.places.values()
            inside = np.isfinite(cost) & self._inside(cost, 0, 1)[..., None] & self._inside(cost, 1, 2)[:, None]
            largest = np.abs(cost, where=inside, out=np.zeros_like(cost)).max((1, 2)).astype(np.float64)
        elif self.metric == "cosine":
            largest = np.full(1, 2.0)
        else:
            x, y = (points.astype(np.float64) for points in self.places.values())
            spans = np.maximum(x.max(1), y.max(1)) - np.minimum(x.min(1), y.min(1))
            with np.errstate(over="ignore"):
                largest = {
                    "sqeuclidean": lambda: (spans**2).sum(-1),
                    "euclidean": lambda: np.linalg.norm(spans, axis=-1),
                    "l1": lambda: spans.sum(-1),
                }[self.metric]()
        return np.broadcast_to(largest, self.count)

    def _inside(self, shared: np.ndarray, side: int, axis: int) -> np.ndarray:
        """(problems or 1, size): what some problem that reads these costs or points counts."""
        sizes = self.sizes[:, side].max(initial=1) if len(shared) == 1 else self.sizes[:, side]
        return np.arange(shared.shape[axis]) < np.reshape(sizes, (-1, 1))

    def start(self, potentials: Any, epsilon: float) -> None:
        """Begin from (f, g), or from nothing; epsilon is the last one of all stages."""
        self.wanted_epsilon = epsilon
        if potentials is None:
            return
        if not isinstance(potentials, (tuple, list)) or len(potentials) != 2:
            raise ArgumentError(
                f"warm_start must be a Transport or the potentials (f, g), got {type(potentials).__name__}"
            )
        check_array("warm_start[1]", potentials[1], REAL, (..., "m"))
        try:
            g = np.broadcast_to(potentials[1], (*self.leading, self.m)).astype(np.float64).reshape(self.count, self.m)
        except ValueError:
            raise ArgumentError(
                f"warm_start[1] must have shape {(*self.leading, self.m)}, got {potentials[1].shape}"
            ) from None
        if np.isnan(g).any() or np.isneginf(g).any():
            raise NotFiniteError("warm_start[1] holds a NaN or -inf")
        g = np.where(np.isposinf(g), 0.0, g)  # what reached nothing begins anew
        if (np.abs(g) > _DIGITS * epsilon).any():
            raise ArgumentError(
                f"warm_start[1] must lie within 2^50 epsilon, got {np.abs(g).max():g}, epsilon {epsilon:g}"
            )
        self.gamma, self.epsilon = g / epsilon, np.full(self.count, epsilon)

    def solve(
        self,
        active: np.ndarray,
        epsilon: np.ndarray,
        most: np.ndarray,
        tolerance: np.ndarray,
        history: bool,
        progress: Callable[[int, float], None] | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Solve the active problems, each at its epsilon with at most so many iterations, from its gamma.

        All arguments (problems,) -> iterations (problems,), errors (problems, iterations) if there is a history.
        """
        if self.metric is not None and (wrong := active & (self.largest_costs() > _DIGITS * epsilon)).any():
            self._refuse_epsilon(wrong)
        self.gamma *= np.where(active, self.epsilon / epsilon, 1.0)[:, None]
        self.epsilon = np.where(active, epsilon, self.epsilon)
        self.status[active] = lib.FD_NOT_BEGUN
        iterations = np.zeros(self.count, np.int64)
        errors = np.empty((self.count, int(most.max(initial=1)))) if history else None
        for these in self.iterate(tolerance, most, iterations, errors):
            if progress is not None:
                progress(int(iterations[these].max()), float((self.totals[0] * self.results[:, 4])[these].max()))
        if (wrong := self.status == lib.FD_COST_NOT_FINITE).any():
            raise NotFiniteError(f"cost holds a NaN or -inf{self._where(wrong)}")
        if (wrong := self.status == lib.FD_EPSILON_TOO_SMALL).any():
            self._refuse_epsilon(wrong)
        return iterations, errors

    def _refuse_epsilon(self, wrong: np.ndarray) -> None:
        largest = self.largest_costs()[int(np.argmax(wrong))]
        raise ArgumentError(
            f"epsilon must be at least 2^-50 of the largest cost, {largest:g}, got {self.wanted_epsilon:g}"
            + self._where(wrong)
        )

    def look_for_infeasible(self) -> None:
        """Say so where forbidden pairs leave no plan: some rows have more mass than all columns that they may reach (Hall's condition).

        The iteration drives the potentials of such rows apart from the others', so they come first by potential: no
        sets are searched.
        """
        if self.metric is not None or self.taus != (np.inf, np.inf):
            return
        (cost,) = self.places.values()
        forbids = (cost == np.inf).any((1, 2))
        for problem in np.flatnonzero((self.status == lib.FD_MAX_ITERATIONS) & forbids):
            n, m = self.sizes[problem]
            allowed = cost[problem % len(cost), :n, :m] < np.inf
            a, b = self.a[problem, :n], self.b[problem, :m]
            order = np.argsort(-np.where(a > 0, self.phi[problem, :n], -np.inf), kind="stable")
            row = allowed[order].argmax(0)  # the first that may reach a column
            reached = np.where(allowed[order].any(0), row, n)
            there = np.cumsum(np.bincount(reached, b, n + 1))[:n]
            if (np.cumsum(a[order]) > there + (1e-9 if self.dtype == np.float64 else 1e-5)).any():
                self.status[problem] = lib.FD_INFEASIBLE

    def plan(self) -> np.ndarray:
        """(..., n, m)"""
        return self.shaped(self.rows(lib.FD_PLAN, self.m))

    def apply(self, values: Any) -> np.ndarray:
        """Products of the plan with values (..., m, k) -> (..., n, k)."""
        check_array("values", values, REAL, (..., "m", "k"))
        if values.dtype != self.dtype or values.shape[-2] != self.m:
            raise ArgumentError(
                f"values must be {self.dtype.name} (..., {self.m}, any), got {values.dtype.name} {values.shape}"
            )
        width, leading = values.shape[-1], values.shape[:-2]
        if not _broadcasts(leading, self.leading):
            raise ArgumentError(f"values must have leading dimensions that broadcast to {self.leading}, got {leading}")
        turned = np.zeros((self.count, width, -(-self.m // 16) * 16), self.dtype)
        wide = np.broadcast_to(values, (*self.leading, self.m, width)).reshape(self.count, self.m, width)
        turned[:, :, : self.m] = wide.swapaxes(1, 2)
        return self.shaped(self.rows(lib.FD_PRODUCT, width, turned))

    def pull(self) -> np.ndarray:
        """Derivatives of the value by x, (..., n, d)."""
        x = self.places["x"]
        gradient = self.rows(lib.FD_GRADIENT, x.shape[2])
        if self.metric == "cosine":
            along = np.einsum("pnd,pnd->pn", gradient, np.broadcast_to(x, gradient.shape))[..., None]
            gradient = ((gradient - x * along) / self.lengths["x"][..., None]).astype(self.dtype)
        return self.shaped(gradient)

    def transposed(self) -> Self:
        other = super().transposed()
        other.lengths = {{"x": "y", "y": "x"}[name]: lengths for name, lengths in self.lengths.items()}
        return other


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _sum(masses: np.ndarray) -> np.ndarray:
    """(problems, n) -> (problems,), in sequence: zeros at the end do not change the rounding."""
    with np.errstate(over="ignore"):
        return np.add.accumulate(masses, axis=-1)[:, -1]


def _taus(unbalanced: Any) -> tuple[float, float]:
    if unbalanced is None:
        return np.inf, np.inf
    taus = unbalanced if isinstance(unbalanced, (tuple, list)) else (unbalanced, unbalanced)
    if len(taus) != 2:
        raise ArgumentError(f"unbalanced must be a number or two, (tau_a, tau_b), got {len(taus)}")
    tiny = np.finfo(np.float64).tiny
    return check_number("unbalanced[0]", taus[0], tiny, np.inf), check_number("unbalanced[1]", taus[1], tiny, np.inf)


def _dtype(dtype: Any) -> np.dtype:
    try:
        found = np.dtype(dtype)
    except Exception:  # TypeError, or what the object raises
        found = None
    if found is None or found not in (np.float32, np.float64):  # a dtype equals None where it is float64
        raise ArgumentError(f"dtype must be float32 or float64, got {short(dtype)}")
    return found


def _sizes(lengths: Any, leading: tuple[int, ...], n: int, m: int) -> np.ndarray:
    """int64 (problems, 2)"""
    sizes = np.empty((math.prod(leading), 2), np.int64)
    sizes[:] = n, m
    if lengths is None:
        return sizes
    if not isinstance(lengths, (tuple, list)) or len(lengths) != 2:
        raise ArgumentError(f"lengths must be two arrays, of rows and of columns, got {short(lengths)}")
    for side, most in enumerate((n, m)):
        counts = as_array(f"lengths[{side}]", lengths[side], np.int64, (...,))
        if counts.shape not in (leading, ()):
            raise ArgumentError(f"lengths[{side}] must have shape {leading}, got {counts.shape}")
        if counts.size and not (counts.min() >= 1 and counts.max() <= most):
            raise ArgumentError(f"lengths[{side}] must lie in 1..{most}, got {counts.min()}..{counts.max()}")
        sizes[:, side] = counts.ravel()
    return sizes
