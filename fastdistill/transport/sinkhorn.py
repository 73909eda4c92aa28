"""Entropic optimal transport: Sinkhorn's iteration over costs or over points, and what is asked of its plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill.arguments import check_flag, check_integer, check_number
from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import lib
from fastdistill.kernels.threads import check_threads
from fastdistill.transport.batch import TransportBatch

_STATUS = {lib.FD_CONVERGED: "converged", lib.FD_MAX_ITERATIONS: "max_iterations", lib.FD_INFEASIBLE: "infeasible"}
_SCALING_ITERATIONS = 10  # at each epsilon on the way down, at most, ...
_SCALING_ERROR = 1e-2  # ... or until the marginal error is this share of the mass


class Transport:
    """What `sinkhorn` found; of a batch, arrays with its leading dimensions (...), of one problem, scalars.

    Plan, products and gradient are computed from the potentials and the costs or points given, which must not have
    changed since.

    Attributes
    ----------
    value : float64 (...)
        what is minimised, regularisation and penalties included: value_linear + epsilon KL(plan | a x b), unbalanced +
        tau_a KL(plan 1 | a) + tau_b KL(plan' 1 | b), where converged; before that the dual's, never above the optimum
    value_linear : float64 (...)
        <cost, plan>
    potentials : float64 f (..., n), g (..., m)
        plan = a b exp((f + g - cost) / epsilon); balanced ones with <f, a> = <g, b>; +inf where everything in reach is
        forbidden or without mass
    plan : np.ndarray (..., n, m)
        in the dtype of the costs, computed when asked for
    gradient : np.ndarray | tuple[np.ndarray, np.ndarray]
        of value: the plan, by the costs; (dx, dy), by points; computed when asked for
    iterations : int64 (...)
    marginal_error : float64 (...)
        the larger of the two L1 distances between a marginal of the plan and the one wanted: a, or a exp(-f / tau)
        where unbalanced; measured on the plan of these potentials
    converged : bool (...)
        marginal_error <= tolerance
    status : str (...)
        "converged", "max_iterations" or "infeasible": forbidden pairs leave no plan; values are inf
    errors : float64 (..., iterations)
        the marginal error after each, where history was asked for; NaN after a problem's last
    epsilon : float
        as it was given
    """

    def __init__(
        self, batch: TransportBatch, epsilon: float, iterations: np.ndarray, errors: np.ndarray | None
    ) -> None:
        p, self._batch, totals = batch, batch, batch.totals
        linear, rows, columns, mass, error = p.results.T
        f, g = p.epsilon[:, None] * p.phi, p.epsilon[:, None] * p.gamma
        f[np.isneginf(p.phi)], g[np.isneginf(p.gamma)] = np.inf, np.inf
        for potentials, count in ((f, p.sizes[:, 0]), (g, p.sizes[:, 1])):
            potentials[np.arange(potentials.shape[1]) >= count[:, None]] = 0.0
        dual = epsilon * (totals[0] * rows + totals[1] * columns + totals[0] * (totals[1] - mass))
        possible = p.status != lib.FD_INFEASIBLE
        self.epsilon = epsilon
        self.value = p.shaped(np.where(possible, dual, np.inf))
        self.value_linear = p.shaped(np.where(possible, totals[0] * linear, np.inf))
        self.potentials = p.shaped(f), p.shaped(g)
        self.iterations = p.shaped(iterations)
        self.marginal_error = p.shaped(totals[0] * error)
        self.converged = p.shaped(p.status == lib.FD_CONVERGED)
        self.status = p.shaped(np.array([_STATUS[int(code)] for code in p.status]))
        self.errors = None if errors is None else p.shaped(errors)

    def __repr__(self) -> str:
        shape = (*self._batch.leading, self._batch.n, self._batch.m)
        return (
            f"Transport({'x'.join(map(str, shape))}, value={self.value}, status={self.status}, iterations={self.iterations}, "
            f"marginal_error={self.marginal_error})"
        )

    @cached_property
    def plan(self) -> np.ndarray:
        return self._batch.plan()

    @cached_property
    def gradient(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        p = self._batch
        return self.plan if p.metric is None else (p.pull(), p.transposed().pull())

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Products of the plan with values (..., m, k) in its dtype -> (..., n, k); the plan is not stored.

        Parameters
        ----------
        values : np.ndarray (..., m, k)
            in the dtype of the plan
        """
        return self._batch.apply(values)

    def apply_transpose(self, values: np.ndarray) -> np.ndarray:
        """Products of the transposed plan with values (..., n, k) in its dtype -> (..., m, k).

        Parameters
        ----------
        values : np.ndarray (..., n, k)
            in the dtype of the plan
        """
        return self._batch.transposed().apply(values)


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

    Parameters
    ----------
    a, b : float32 or float64 (..., n), (..., m) or None
        masses of equal totals, 0 or more; None: uniform, of total 1
    cost : float32 or float64 (..., n, m), optional
        C-contiguous; +inf forbids a pair
    x, y : float32 or float64 (..., n, d), (..., m, d), optional
        in its place, points of one dtype: costs are computed on the way and never stored
    metric : str, default "sqeuclidean"
        of points: "sqeuclidean", sum (x - y)^2; "euclidean"; "l1"; "cosine", 1 - x.y / |x||y|
    epsilon : float
        above 0, in the unit of the costs
    max_iterations : int, default 1000
        1 or more; an iteration updates f, then g
    tolerance : float, default 1e-6
        of the marginal error, in the unit of the masses
    unbalanced : tuple[float, float] | float, optional
        (tau_a, tau_b), or one for both: marginals may differ, at the price tau_a KL(P 1 | a) + tau_b KL(P' 1 | b); inf:
        that one may not
    epsilon_scaling : float, optional
        in (0, 1): begin with epsilon at the largest cost and let it fall by this factor
    warm_start : Transport | tuple[np.ndarray, np.ndarray], optional
        a Transport or (f, g) to begin from; g counts
    dtype : Any, optional
        float32 or float64 to compute in; that of the costs or points, if None
    lengths : tuple[Any, Any], optional
        rows (...) and columns (...) that count in each problem of a ragged batch; what is beyond is not read
    history : bool, default False
        keep the marginal error after each iteration
    progress : Callable[[int, float], None], optional
        called now and then with the iterations done and the marginal error, of the farthest and the worst running
        problem
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    Transport
        the same bits for any threads and instruction set, and for a problem alone or in a batch

    Raises
    ------
    ArgumentError
    NotFiniteError

    Notes
    -----
    Leading dimensions broadcast. Points without mass take no part in the plan; their potentials are what the others
    imply.

    References
    ----------
    Cuturi 2013; Schmitzer 2019 (absorption into the kernel); Chizat et al. 2018 (unbalanced); see
    docs/kernels/transport/sinkhorn.md

    Examples
    --------
    >>> cost = np.abs(np.arange(3.0)[:, None] - np.arange(3.0))  # between places 0, 1, 2
    >>> a, b = np.array([0.5, 0.5, 0]), np.array([0, 0.5, 0.5])
    >>> found = fd.transport.sinkhorn(a, b, cost, epsilon=0.05)
    >>> found.status, round(float(found.value), 3)  # half of the mass goes 2 far
    ('converged', 1.0)
    """
    epsilon = check_number("epsilon", epsilon, np.finfo(np.float64).tiny, np.finfo(np.float64).max)
    max_iterations = check_integer("max_iterations", max_iterations, 1, 2**31 - 1)
    tolerance = check_number("tolerance", tolerance, 0, np.inf)
    history, threads = check_flag("history", history), check_threads(threads)
    if epsilon_scaling is not None and not 0 < check_number("epsilon_scaling", epsilon_scaling, 0, 1) < 1:
        raise ArgumentError(f"epsilon_scaling must lie between 0 and 1, got {epsilon_scaling:g}")
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress must be callable, got {type(progress).__name__}")
    batch = TransportBatch(a, b, cost, x, y, metric, dtype, lengths, unbalanced, threads)
    if not epsilon <= 1e100 * min(batch.taus):
        raise ArgumentError(f"unbalanced must be at least 1e-100 of epsilon, {epsilon:g}, got {min(batch.taus):g}")
    batch.start(warm_start.potentials if isinstance(warm_start, Transport) else warm_start, epsilon)

    iterations, active, errors = np.zeros(batch.count, np.int64), np.full(batch.count, True), []
    now = np.full(batch.count, epsilon) if epsilon_scaling is None else np.maximum(batch.largest_costs(), epsilon)
    while active.any():
        now = np.where(max_iterations - iterations > 1, now, epsilon)  # one is left for epsilon itself
        last = now <= epsilon
        most = max_iterations - iterations
        done, found = batch.solve(
            active,
            now,
            np.where(last, most, np.minimum(most - 1, _SCALING_ITERATIONS)),
            np.where(last, tolerance, _SCALING_ERROR * batch.totals[0]),
            history,
            progress,
        )
        errors.append((iterations.copy(), done, found))
        iterations += done
        active &= ~last & (batch.status != lib.FD_INFEASIBLE)
        now = np.maximum(now * (epsilon_scaling or 1.0), epsilon)
    batch.look_for_infeasible()
    return Transport(batch, epsilon, iterations, _joined(errors, iterations, batch.totals[0]) if history else None)


def _joined(stages: list[Any], iterations: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The errors of all stages, one after the other: (problems, iterations), NaN after a problem's last."""
    errors = np.full((len(iterations), iterations.max(initial=0)), np.nan)
    for before, done, found in stages:
        for row, start, count, new, total in zip(errors, before, done, found, totals, strict=True):
            row[start : start + count] = total * new[:count]
    return errors
