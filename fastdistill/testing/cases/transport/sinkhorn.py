"""Sinkhorn's iteration over costs and over points: as many iterations as are asked for, wherever they lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill import transport
from fastdistill.reference.transport.sinkhorn import sinkhorn as reference_sinkhorn
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, near

# One, one under, at and over one and two blocks of 16 lanes, and more than a tile.
SIZES = [1, 2, 15, 16, 17, 31, 33, 70]
METRICS = ["sqeuclidean", "euclidean", "l1", "cosine"]
TAUS = [None, (1.0, 0.5), (np.inf, 0.3), (2.0, np.inf)]
REALS = [np.float32, np.float64]


@dataclass
class Problem:
    """Masses and a cost, all of one dtype; and what they may lose.

    Attributes
    ----------
    a : float32 or float64 (n,)
        masses
    b : float32 or float64 (m,)
        masses
    cost : float32 or float64 (n, m)
        +inf forbids a pair
    unbalanced : tuple[float, float] | None
        what a mass that is not moved costs, of each side
    """

    a: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    unbalanced: tuple[float, float] | None

    @property
    def unit(self) -> float:
        return float(np.finfo(self.cost.dtype).eps) / 2

    @property
    def range(self) -> float:
        return float(np.abs(self.cost[np.isfinite(self.cost)]).max(initial=0)) or 1.0

    def relative(self, slack: float, epsilon: float) -> float:
        """How far that takes a plan apart, of two potentials, or what is wanted of a marginal, a exp(-f / tau)."""
        return float(np.expm1(slack * (2 / epsilon + 1 / min(self.unbalanced or [np.inf]))))

    def potential_slack(self, potentials: Sequence[np.ndarray], epsilon: float, iterations: int) -> float:
        """How far roundings may take potentials apart.

        A softmin moves no more than what it is given: errors add up, 2 an iteration.  Each: the exponent has 4 roundings of
        numbers below the largest potential or cost, its exp and log some ulp of 1, the sum one for each term, and the logarithms
        of masses theirs.  The gauge doubles it.
        """
        largest = max([self.range, *(np.abs(p[np.isfinite(p)]).max(initial=0) for p in potentials)])
        return (2 * iterations + 2) * 2 * self.unit * (8 * largest + epsilon * self._terms)

    @property
    def shift_slack(self) -> float:
        """How far roundings may shift potentials further, f one way and g the other, so that no plan sees it.

        Unbalanced totals are made to agree anew in each iteration, by s = log(A / B) / (1 / tau_a + 1 / tau_b): two logarithms of sums,
        which round as those of the softmins do, times what may be much more than epsilon.
        """
        stiffness = sum(1 / tau for tau in self.unbalanced or ())
        return 2 * self.unit * self._terms / stiffness if stiffness else 0.0

    @property
    def _terms(self) -> float:
        """What the logarithm of a sum over a side rounds by, in units: terms, folds, and the logarithms of masses."""
        masses = np.concatenate([self.a, self.b]).astype(np.float64)
        return float(sum(self.cost.shape) + 16 + np.abs(np.log(masses[masses > 0])).max())


def any_problem(
    draw: Choices,
    sizes: Sequence[int] = SIZES,
    reals: Sequence[Any] = REALS,
    forbidden: Sequence[float] = (0, 0.5),
    taus: Sequence[tuple[float, float] | None] = TAUS,
) -> Problem:
    """Costs with some pairs forbidden, and the marginals of some plan over what is allowed: a plan exists.

    Rows that may go nowhere have no mass; so do some more.  Unbalanced, totals differ.
    """
    n, m, dtype, random = draw.choice(sizes), draw.choice(sizes), draw.choice(reals), draw.generator()
    cost = random.random((n, m)) * draw.choice([1e-3, 1, 50])
    cost = np.round(cost, 1) if draw.boolean() else cost  # ties
    allowed = random.random((n, m)) >= draw.choice(forbidden)
    there = allowed * (random.random(n) >= draw.choice([0, 0.2]))[:, None]
    plan = there * random.random((n, m)) ** draw.choice([1, 8])
    if plan.sum() < 1e-3:
        allowed[0, 0], plan[0, 0] = True, 1
    plan *= draw.choice([1, 1, 0.01, 30]) / plan.sum()
    cost[~allowed] = np.inf
    a, b, unbalanced = plan.sum(axis=1), plan.sum(axis=0), draw.choice(taus)
    if unbalanced is not None:
        b *= draw.choice([1, 0.3, 5])
    return Problem(a.astype(dtype), b.astype(dtype), cost.astype(dtype), unbalanced)


def any_epsilon(draw: Choices, problem: Problem, exponents: Sequence[int]) -> float:
    """A power of ten times the median cost."""
    finite = problem.cost[np.isfinite(problem.cost)]
    middle = float(np.median(finite)) if finite.size else 1.0
    return 10.0 ** draw.choice(exponents) * (middle or 1.0)


def cases(draw: Choices, grounds: Sequence[str] = ("cost", "points")) -> Case:
    """Costs with masses, or points of any metric with uniform ones."""
    if draw.choice(grounds) == "cost":
        problem = any_problem(draw)
        exponents = [-2, -1, 0, 1, 3] if problem.cost.dtype == np.float64 else [-1, 0, 1, 2]
        return {
            "a": problem.a, "b": problem.b, "cost": problem.cost, "epsilon": any_epsilon(draw, problem, exponents),
            "unbalanced": problem.unbalanced, "max_iterations": draw.choice([1, 2, 20]), "tolerance": 0.0, "history": True,
        }  # fmt: skip
    n, m, d = draw.choice([1, 16, 33]), draw.choice([1, 15, 70]), draw.choice([1, 2, 3, 16, 17])
    dtype, random = draw.choice(REALS), draw.generator()
    x, y = random.standard_normal((n, d)).astype(dtype), random.standard_normal((m, d)).astype(dtype)
    return {
        "a": None, "b": None, "x": x, "y": y, "metric": draw.choice(METRICS), "epsilon": 1.5, "unbalanced": draw.choice(TAUS),
        "max_iterations": 5, "tolerance": 0.0,
    }  # fmt: skip


def check(case: Case, function: Callable[..., Any] = transport.sinkhorn) -> Any:
    """Potentials, plan, values and errors, each as far as roundings of so many iterations may take it; the result as a tuple."""
    got, want = function(**case), reference_sinkhorn(**case)
    (_over_costs if "cost" in case else _over_points)(case, got, want)
    gradient = got.gradient if isinstance(got.gradient, tuple) else (got.gradient,)
    return (*got.potentials, got.plan, *gradient, got.value_linear, got.value, got.marginal_error, got.iterations)


def _over_costs(case: Case, got: Any, want: Any) -> None:
    problem, epsilon = Problem(case["a"], case["b"], case["cost"], case["unbalanced"]), case["epsilon"]
    slack = problem.potential_slack(want.potentials, epsilon, case["max_iterations"])
    _potentials(got, want, slack + problem.shift_slack)
    relative = problem.relative(slack, epsilon) + 8 * problem.unit  # rounded, it may underflow below the normal numbers
    tiny = float(np.finfo(got.plan.dtype).tiny)
    near("plan", got.plan, want.plan, relative * want.plan + tiny)
    apart = relative * want.plan.sum() + tiny * want.plan.size
    masses = float(problem.a.sum(dtype=np.float64) + problem.b.sum(dtype=np.float64))
    near("value_linear", got.value_linear, want.value_linear, apart * problem.range)
    near("value", got.value, want.value, slack * masses + epsilon * apart)
    near("marginal_error", got.marginal_error, want.marginal_error, apart + masses * relative)
    if got.iterations == want.iterations:
        near("errors", got.errors, want.errors, apart + masses * relative)
    else:  # where an error of 0 is met, roundings decide when
        least = min(got.marginal_error, want.marginal_error)
        holds(least <= apart + masses * relative, f"{got.iterations} iterations, the reference has {want.iterations}")


def _over_points(case: Case, got: Any, want: Any) -> None:
    """A distance: of d terms, each with 3 roundings, below four times the largest square."""
    x, y, metric, epsilon = case["x"], case["y"], case["metric"], case["epsilon"]
    (n, d), m = x.shape, len(y)
    largest = max(np.abs(x).max(), np.abs(y).max(), 1.0)
    unit = np.finfo(x.dtype).eps / 2
    distance = 4 * d * largest**2
    rounds = 2 * (case["max_iterations"] + 1)
    slack = rounds * 2 * unit * ((d + 8) * distance * 4 + epsilon * (n + m + 24))
    _potentials(got, want, slack)
    relative = np.expm1(2 * slack / epsilon)
    near("plan", got.plan, want.plan, relative * want.plan + 1e-30)
    near("value_linear", got.value_linear, want.value_linear, (relative + unit * (d + 8)) * distance)
    # The slope of a distance by a coordinate is below 4 largest, or for a cosine 2 / |x|.
    slope = 2 / min(np.linalg.norm(p, axis=1).min() for p in (x, y)) if metric == "cosine" else 4 * largest
    for name, found, meant in zip(("dx", "dy"), got.gradient, want.gradient, strict=True):
        near(name, found, meant, (relative + unit * (n + m + 4 * d + 8)) * slope)


def _potentials(got: Any, want: Any, slack: float) -> None:
    for name, found, meant in zip("fg", got.potentials, want.potentials, strict=True):
        near(name, found, meant, slack, np.float64)
