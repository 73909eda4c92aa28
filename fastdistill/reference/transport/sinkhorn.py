"""What `transport.sinkhorn` means."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.reference.transport.distance_gradient import distance_gradient
from fastdistill.reference.transport.pairwise_distance import pairwise_distance


class Transport(NamedTuple):
    """Fields of `transport.Transport`: of a batch (...), arrays with these leading dimensions; of one problem, scalars."""

    value: np.ndarray
    value_linear: np.ndarray
    potentials: tuple[np.ndarray, np.ndarray]
    plan: np.ndarray
    gradient: np.ndarray | tuple[np.ndarray, np.ndarray]
    iterations: np.ndarray
    marginal_error: np.ndarray
    converged: np.ndarray
    status: np.ndarray
    errors: np.ndarray | None


def sinkhorn(
    a,
    b,
    cost=None,
    *,
    x=None,
    y=None,
    metric="sqeuclidean",
    epsilon,
    max_iterations=1000,
    tolerance=1e-6,
    unbalanced=None,
    epsilon_scaling=None,
    warm_start=None,
    dtype=None,
    lengths=None,
    history=False,
    progress=None,
):
    """Transport between masses a (..., n) and b (..., m) at a cost (..., n, m), or between points x (..., n, d) and y (..., m, d).

    All in float64, whatever dtype says.
    """
    if cost is None:
        cost = pairwise_distance(x, y, metric)
    *outer, n, m = cost.shape
    leading = np.broadcast_shapes(outer, *(masses.shape[:-1] for masses in (a, b) if masses is not None))
    cost = np.broadcast_to(cost, (*leading, n, m)).astype(np.float64)
    rows, columns = (np.broadcast_to(count, leading) for count in ((n, m) if lengths is None else lengths))
    _, start = (0, np.zeros(m)) if warm_start is None else getattr(warm_start, "potentials", warm_start)
    start = np.broadcast_to(start, (*leading, m))

    value, value_linear, marginal_error = np.empty(leading), np.empty(leading), np.empty(leading)
    f, g, plan = np.zeros((*leading, n)), np.zeros((*leading, m)), np.zeros((*leading, n, m))
    iterations, status = np.empty(leading, np.int64), np.empty(leading, object)
    errors = np.full((*leading, max_iterations), np.nan)
    for item in np.ndindex(*leading):
        i, j = (*item, slice(rows[item])), (*item, slice(columns[item]))
        problem = _Problem(
            np.full(rows[item], 1 / rows[item]) if a is None else np.broadcast_to(a, (*leading, n))[i],
            np.full(columns[item], 1 / columns[item]) if b is None else np.broadcast_to(b, (*leading, m))[j],
            cost[(*i, slice(columns[item]))],
            unbalanced,
        )
        f[i], g[j], made, status[item] = problem.solve(epsilon, max_iterations, tolerance, epsilon_scaling, start[j])
        iterations[item], errors[(*item, slice(len(made)))] = len(made), made
        plan[(*i, slice(columns[item]))] = problem.plan(f[i], g[j], epsilon)
        value[item], value_linear[item] = problem.values(f[i], g[j], epsilon)
        marginal_error[item] = problem.error(f[i], g[j], epsilon)
        if status[item] == "infeasible":
            value[item] = value_linear[item] = np.inf
        if progress is not None:
            progress(len(made), marginal_error[item])
    gradient = plan
    if x is not None:
        gradient = distance_gradient(plan, x, y, metric), distance_gradient(np.swapaxes(plan, -1, -2), y, x, metric)
    return Transport(
        value[()], value_linear[()], (f, g), plan, gradient, iterations[()], marginal_error[()],
        (status == "converged")[()], status.astype(str)[()], errors[..., : iterations.max(initial=0)] if history else None,
    )  # fmt: skip


class _Problem:
    """One problem: masses a (n,) and b (m,), cost (n, m), and how hard each side holds to its masses."""

    def __init__(self, a, b, cost, unbalanced):
        self.agreement = 1e-5 if np.float32 in (a.dtype, b.dtype) else 1e-8  # of totals that should be one
        self.a, self.b, self.cost = a.astype(np.float64), b.astype(np.float64), cost
        self.tau_a, self.tau_b = np.broadcast_to(np.inf if unbalanced is None else unbalanced, 2)
        if self.balanced:
            self.b = self.b * (self.a.sum() / self.b.sum())

    @property
    def balanced(self):
        return np.isinf(self.tau_a) and np.isinf(self.tau_b)

    def solve(self, epsilon, max_iterations, tolerance, epsilon_scaling, g):
        """f (n,), g (m,), the marginal error of each iteration, and the status."""
        errors = []
        for scaled in self._scaled(epsilon, epsilon_scaling):
            most = min(len(errors) + 10, max_iterations - 1)  # one is left for epsilon itself
            if len(errors) < most:
                f, g, status = self._iterate(scaled, most, 1e-2 * self.a.sum(), g, errors)
                if status == "infeasible":
                    return f, g, errors, status
        f, g, status = self._iterate(epsilon, max_iterations, tolerance, g, errors)
        if status == "max_iterations" and self._violates_hall(f):
            status = "infeasible"
        # What has no mass takes no part; its potential is the softmin of the others.
        g = np.where(self.b > 0, g, self._columns(f, epsilon))
        if self.balanced:
            shift = (_mean(self.b, g) - _mean(self.a, f)) / 2
            f, g = f + shift, g - shift
        return f, g, errors, status

    def _iterate(self, epsilon, max_iterations, tolerance, g, errors):
        """Rows, then columns; the column error is known in between, while the rows are exact, and there it ends."""
        stuck_rows, stuck_columns = self._stuck()
        f = self._rows(g, epsilon)
        if stuck_rows > tolerance:
            return f, g, "infeasible"
        while True:
            errors.append(self._column_error(f, g, epsilon))
            if errors[-1] <= tolerance:
                return f, g, "converged"
            if stuck_columns > tolerance:
                return f, g, "infeasible"
            if len(errors) >= max_iterations:
                return f, g, "max_iterations"
            g = self._columns(f, epsilon)
            g = g - self._shift(f, g, epsilon)
            f = self._rows(g, epsilon)

    def _shift(self, f, g, epsilon):
        """f + shift, g - shift: the same plan, and the largest dual value, as both sides then ask for the same total."""
        if self.balanced:
            return 0.0
        apart = _log_total(self.a, f, self.tau_a) - _log_total(self.b, g, self.tau_b)
        shift = apart / (1 / self.tau_a + 1 / self.tau_b)
        return shift if abs(apart) > 2**-45 and abs(shift) < 2**40 * epsilon else 0.0  # rounding; no digits left

    def _scaled(self, epsilon, factor):
        if factor is None:
            return
        scaled = self.cost[np.isfinite(self.cost)].max(initial=0)
        while scaled > epsilon:
            yield scaled
            scaled *= factor

    def _rows(self, g, epsilon):
        return _softmin(self.b, g, self.cost, epsilon) * _damping(self.tau_a, epsilon)

    def _columns(self, f, epsilon):
        return _softmin(self.a, f, self.cost.T, epsilon) * _damping(self.tau_b, epsilon)

    def _column_error(self, f, g, epsilon):
        return np.abs(self.plan(f, g, epsilon).sum(axis=0) - _wanted(self.b, g, self.tau_b)).sum()

    def plan(self, f, g, epsilon):
        """a_i b_j exp((f_i + g_j - cost_ij) / epsilon); nothing where a cost or a potential is infinite."""
        exponent = np.full(self.cost.shape, -np.inf)
        there = np.isfinite(f[:, None] + g + self.cost)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            exponent[there] = (f[:, None] + g - self.cost)[there] / epsilon
            return np.exp(np.log(self.a)[:, None] + np.log(self.b) + exponent)

    def error(self, f, g, epsilon):
        """The larger of the two."""
        rows = np.abs(self.plan(f, g, epsilon).sum(axis=1) - _wanted(self.a, f, self.tau_a)).sum()
        return max(rows, self._column_error(f, g, epsilon))

    def values(self, f, g, epsilon):
        """The dual value, which is the objective's where f and g are optimal, and <cost, plan>."""
        plan, total = self.plan(f, g, epsilon), self.a.sum() * self.b.sum()
        dual = _dual(self.a, f, self.tau_a) + _dual(self.b, g, self.tau_b)
        return dual + epsilon * (total - plan.sum()), np.sum(plan[plan > 0] * self.cost[plan > 0])

    def _stuck(self):
        """The mass of rows that must be moved and has nowhere to go, and of columns."""
        reach = np.isfinite(self.cost) & (self.a > 0)[:, None] & (self.b > 0)
        rows, columns = self.a[~reach.any(axis=1)].sum(), self.b[~reach.any(axis=0)].sum()
        return rows if np.isinf(self.tau_a) else 0, columns if np.isinf(self.tau_b) else 0

    def _violates_hall(self, f):
        """Whether some rows hold more than all columns that they reach: the potentials of these rows rise without end."""
        if not self.balanced:
            return False
        rows = [i for i in np.argsort(-f, kind="stable") if self.a[i] > 0]
        reached = np.logical_or.accumulate(np.isfinite(self.cost[rows]), axis=0)
        return bool((np.cumsum(self.a[rows]) > reached @ self.b + self.agreement * self.a.sum()).any())


def _softmin(masses, potentials, cost, epsilon):
    """-epsilon log sum_j masses_j exp((potentials_j - cost_ij) / epsilon), (rows,); +inf where nothing is reached."""
    with np.errstate(invalid="ignore", divide="ignore"):
        exponent = np.log(masses) + (potentials - cost) / epsilon
        exponent[~np.isfinite(cost) | (masses == 0) | np.isinf(potentials)] = -np.inf  # +inf: carries nothing
        top = exponent.max(axis=1, initial=-np.inf)
        top = np.where(np.isfinite(top), top, 0)
        return -epsilon * (top + np.log(np.exp(exponent - top[:, None]).sum(axis=1)))


def _damping(tau, epsilon):
    return 1.0 if np.isinf(tau) else tau / (tau + epsilon)


def _wanted(masses, potentials, tau):
    """What an optimal plan moves of each point."""
    with np.errstate(over="ignore"):
        return masses if np.isinf(tau) else np.where(masses > 0, masses * np.exp(-potentials / tau), 0)


def _log_total(masses, potentials, tau):
    """log sum masses exp(-potentials / tau), of those that reach something."""
    there = (masses > 0) & np.isfinite(potentials)
    exponent = np.log(masses[there]) - potentials[there] / tau
    top = exponent.max(initial=-np.inf)
    return top + np.log(np.exp(exponent - top).sum()) if there.any() else -np.inf


def _mean(masses, potentials):
    there = np.isfinite(potentials)  # +inf: carries nothing
    return masses[there] @ potentials[there] / masses.sum()


def _dual(masses, potentials, tau):
    if np.isinf(tau):
        return masses.sum() * _mean(masses, potentials)
    return -tau * np.sum(masses[masses > 0] * np.expm1(-potentials[masses > 0] / tau))
