"""The cost of a plan after a number of Sinkhorn iterations, and its gradient through them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import REAL, check_array, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, ffi, lib, pointer
from fastdistill.kernels.threads import check_threads
from fastdistill.kernels.transport.points import check_finite, terms_of_a_call

_DOUBLES_AT_ONCE = 1 << 17  # of workspace, for as many problems as fit: a second-level cache
_TERMS_OF_AN_EXPONENTIAL = 64


class Unrolled(NamedTuple):
    """A plan, what it costs, and the gradient of that by each cost.

    Attributes
    ----------
    value : float64 (...)
        the sum of plan times cost, in the unit of the costs
    plan : np.ndarray (..., n, m)
        in the dtype of the costs: columns sum to 1, rows as nearly as the iterations got
    gradient : np.ndarray (..., n, m)
        of value by each cost, in their dtype
    """

    value: np.ndarray
    plan: np.ndarray
    gradient: np.ndarray


def unrolled_sinkhorn(cost: np.ndarray, epsilon: float, iterations: int, *, threads: int | None = 1) -> Unrolled:
    """From exp(-cost / epsilon), so many times every row is divided by its sum, then every column: a plan, and what it costs.

    In logarithms and float64 inside, so that any epsilon works.

    Parameters
    ----------
    cost : float32 or float64 (..., n, m)
        n, m >= 1, finite
    epsilon : float
        above 0
    iterations : int
        at least 1
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    Unrolled
        columns of the plan sum to 1, rows as nearly as the iterations got; value is the sum of plan * cost, and
        gradient its derivative by the costs, through all iterations

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    *leading, n, m = check_array("cost", cost, REAL, (..., "n", "m"))
    if 0 in (n, m):
        raise ArgumentError(f"cost must have rows and columns, got shape {cost.shape}")
    epsilon = check_number("epsilon", epsilon, math.ulp(0.0), np.finfo(np.float64).max)
    iterations, threads = check_integer("iterations", iterations, 1, 1 << 30), check_threads(threads)
    check_finite(cost=cost)
    given = cost.astype(np.float64, copy=False).reshape(-1, n, m)
    batch = len(given)
    if batch and not math.isfinite(float(np.abs(given).max()) / epsilon):
        raise ArgumentError(f"epsilon = {epsilon:g} is too small for these costs: their quotient overflows")
    value, plan, gradient = np.empty(batch), np.empty_like(given), np.empty_like(given)
    at_once = max(1, _DOUBLES_AT_ONCE // lib.fd_unrolled_sinkhorn_workspace(1, n, m, iterations))
    workspace = np.empty(lib.fd_unrolled_sinkhorn_workspace(min(at_once, batch), n, m, iterations))
    steps = lib.fd_unrolled_sinkhorn_steps(iterations)
    for first in range(0, batch, at_once):
        part = slice(first, first + at_once)
        held = [const(given[part]), *(pointer(array) for array in (value[part], plan[part], gradient[part], workspace))]
        problem = ffi.new("struct fd_unrolled *", (len(value[part]), n, m, iterations, epsilon, *held))
        at_a_time = max(1, terms_of_a_call() // (_TERMS_OF_AN_EXPONENTIAL * len(value[part]) * n * m))
        for step in range(0, steps, at_a_time):
            lib.fd_unrolled_sinkhorn(problem, step, min(step + at_a_time, steps), threads)
    shape = (*leading, n, m)
    return Unrolled(
        value.reshape(leading)[()], *(found.astype(cost.dtype, copy=False).reshape(shape) for found in (plan, gradient))
    )
