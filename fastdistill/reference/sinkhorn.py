"""What `kernels.sinkhorn` means."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Transport(NamedTuple):
    """Fields of `kernels.Transport`: of a batch (...), arrays with these leading dimensions; of one problem, scalars."""

    value: np.ndarray
    entropic_value: np.ndarray
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
        cost, dx, dy = _distances(x.astype(np.float64), y.astype(np.float64), metric)
    *outer, n, m = cost.shape
    leading = np.broadcast_shapes(outer, *(masses.shape[:-1] for masses in (a, b) if masses is not None))
    cost = np.broadcast_to(cost, (*leading, n, m)).astype(np.float64)
    rows, columns = (np.broadcast_to(count, leading) for count in ((n, m) if lengths is None else lengths))
    start = np.zeros((*leading, m)) if warm_start is None else np.broadcast_to(warm_start[1], (*leading, m))

    value, entropic_value, marginal_error = np.empty(leading), np.empty(leading), np.empty(leading)
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
        f[i], g[j], made, status[item] = problem.solve(
            epsilon, max_iterations, tolerance, epsilon_scaling, np.where(np.isfinite(start[j]), start[j], 0)
        )
        iterations[item], marginal_error[item], errors[(*item, slice(len(made)))] = len(made), made[-1], made
        plan[(*i, slice(columns[item]))] = problem.plan(f[i], g[j], epsilon)
        value[item], entropic_value[item] = problem.values(f[i], g[j], epsilon)
        if status[item] == "infeasible":
            value[item] = entropic_value[item] = np.inf
        if progress is not None:
            progress(len(made), made[-1])
    gradient = (
        plan if x is None else (np.einsum("...ij,...ijk->...ik", plan, dx), np.einsum("...ij,...ijk->...jk", plan, dy))
    )
    return Transport(
        value[()], entropic_value[()], (f, g), plan, gradient, iterations[()], marginal_error[()],
        (status == "converged")[()], status.astype(str)[()], errors[..., : iterations.max(initial=0)] if history else None,
    )  # fmt: skip


class _Problem:
    """One problem: masses a (n,) and b (m,), cost (n, m), and how hard each side holds to its masses."""

    def __init__(self, a, b, cost, unbalanced):
        self.agreement = 1e-5 if np.float32 in (a.dtype, b.dtype) else 1e-8  # of totals that should be one
        self.a, self.b, self.cost = a.astype(np.float64), b.astype(np.float64), cost
        self.tau_a, self.tau_b = (np.inf, np.inf) if unbalanced is None else unbalanced
        if self.balanced:
            self.b = self.b * (self.a.sum() / self.b.sum())

    @property
    def balanced(self):
        return np.isinf(self.tau_a) and np.isinf(self.tau_b)

    def solve(self, epsilon, max_iterations, tolerance, epsilon_scaling, g):
        """f (n,), g (m,), the marginal error of each iteration, and the status."""
        errors, f = [], np.zeros(len(self.a))
        if not self._alone():
            for scaled in self._scaled(epsilon, epsilon_scaling):
                most = min(len(errors) + 10, max_iterations - 1)  # one is left for epsilon itself
                if len(errors) < most:
                    f, g = self._iterate(scaled, most, 1e-2 * self.a.sum(), g, errors)
            f, g = self._iterate(epsilon, max_iterations, tolerance, g, errors)
        else:
            f, errors = self._rows(g, epsilon), [np.inf]
        status = "converged" if errors[-1] <= tolerance else "max_iterations"
        if status == "max_iterations" and (self._alone() or self._violates_hall(f)):
            status = "infeasible"
        # What has no mass takes no part; its potential is the softmin of the others.
        g = np.where(self.b > 0, g, self._columns(f, epsilon))
        if self.balanced:
            f_mean, g_mean = (np.sum(p[w > 0] * w[w > 0]) / w.sum() for p, w in ((f, self.a), (g, self.b)))
            if np.isfinite(f_mean) and np.isfinite(g_mean):
                f, g = f + (g_mean - f_mean) / 2, g - (g_mean - f_mean) / 2
        return f, g, errors, status

    def _iterate(self, epsilon, max_iterations, tolerance, g, errors):
        """Rows, then columns; the column error is known in between, while the rows are exact, and there it ends."""
        f = self._rows(g, epsilon)
        while True:
            errors.append(self._column_error(f, g, epsilon))
            if errors[-1] <= tolerance or len(errors) >= max_iterations:
                return f, g
            g = self._columns(f, epsilon)
            f = self._rows(g, epsilon)

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
        exponent = np.full(self.cost.shape, -np.inf)
        there = np.isfinite(self.cost) & (self.a > 0)[:, None] & (self.b > 0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            exponent[there] = (f[:, None] + g - self.cost)[there] / epsilon
            return np.exp(np.log(self.a)[:, None] + np.log(self.b) + exponent)

    def values(self, f, g, epsilon):
        """<cost, plan>, and the dual value, which is the entropic one where f and g are optimal."""
        plan, total = self.plan(f, g, epsilon), self.a.sum() * self.b.sum()
        dual = _dual(self.a, f, self.tau_a) + _dual(self.b, g, self.tau_b)
        return np.sum(plan[plan > 0] * self.cost[plan > 0]), dual + epsilon * (total - plan.sum())

    def _alone(self):
        """Whether something that must be moved has nowhere to go."""
        reach = np.isfinite(self.cost) & (self.a > 0)[:, None] & (self.b > 0)
        rows, columns = (self.a > 0) & ~reach.any(axis=1), (self.b > 0) & ~reach.any(axis=0)
        return (np.isinf(self.tau_a) and rows.any()) or (np.isinf(self.tau_b) and columns.any())

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


def _dual(masses, potentials, tau):
    masses, potentials = masses[masses > 0], potentials[masses > 0]
    return np.sum(masses * (potentials if np.isinf(tau) else -tau * np.expm1(-potentials / tau)))


def _distances(x, y, metric):
    """cost (..., n, m) between points x (..., n, d) and y (..., m, d), and its gradients by x and y, (..., n, m, d)."""
    x, y = x[..., :, None, :], y[..., None, :, :]
    difference = x - y
    if metric == "sqeuclidean":
        return (difference**2).sum(axis=-1), 2 * difference, -2 * difference
    if metric == "l1":
        return np.abs(difference).sum(axis=-1), np.sign(difference), -np.sign(difference)
    if metric == "euclidean":
        distance = np.sqrt((difference**2).sum(axis=-1))
        slope = difference / np.where(distance > 0, distance, 1)[..., None]
        return distance, slope, -slope
    x_norm, y_norm = (np.sqrt((points**2).sum(axis=-1, keepdims=True)) for points in (x, y))
    u, v = x / x_norm, y / y_norm
    similarity = (u * v).sum(axis=-1, keepdims=True)
    return 1 - similarity[..., 0], (similarity * u - v) / x_norm, (similarity * v - u) / y_norm
