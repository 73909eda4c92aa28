"""SinKD: the cost of transport between a batch of the student's laws and the teacher's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, check_array, check_choice, check_number
from fastdistill.distill.loss import Loss
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import distance_gradient, pairwise_distance, softmax, softmax_gradient, unrolled_sinkhorn
from fastdistill.kernels.threads import check_threads
from fastdistill.transport import sinkhorn

_MODES = "unrolled", "entropic"
_TOLERANCE, _MOST_ITERATIONS = 1e-10, 10_000  # of the entropic mode: marginal error, as a share of the mass


def sinkhorn_loss(
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    iterations: int = 20,
    scale: float = 1.0,
    mode: str = "unrolled",
    threads: int | None = None,
) -> Loss:
    """The cost of carrying a batch of the student's laws to the teacher's; a law's way is the L1 distance, 0 to 2.

    With x and y the softmax of student / temperature and teacher / temperature and W_ij = |x_i - y_j|:

    - unrolled: scale <P, W>, P from exp(-W / epsilon) by so many divisions of rows, then columns, by their sums; its
      exact gradient through all of them (Cui et al. 2024, SinKD)
    - entropic: scale (min <P, W> - epsilon H(P)) over plans whose rows and columns sum to 1, H(P) = -sum P log P, at
      its optimum: iterations does not matter; negative where epsilon is large

    Parameters
    ----------
    student, teacher : float32 or float64 (batch, vocab)
        of one shape and dtype; -inf is a ban. Rows that are padding do not belong here: they would take in mass.
    temperature : float, default 2.0
        that the logits are divided by, above 0
    epsilon : float, default 0.1
        above 0, in the unit of the L1 distance
    iterations : int, default 20
        so many divisions of rows and columns
    scale : float, default 1.0
        what value and gradient are multiplied by
    mode : str, default "unrolled"
        "unrolled" or "entropic"
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    Loss
        gradient (batch, vocab), in the dtype of the logits; rows: what each row of the student costs; info: marginal_error,
        how far the plan's rows and columns are from summing to 1, in L1

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    The rows' order does not matter to it: beside it an objective of each sample's own is needed.
    """
    batch, vocab = check_array("student", student, REAL, ("batch", "vocab"))
    check_array("teacher", teacher, student.dtype.type, (batch, vocab))
    if 0 in (batch, vocab):
        raise ArgumentError(f"student must have rows and columns, got shape {student.shape}")
    check_choice("mode", mode, _MODES)
    scale, threads = check_number("scale", scale, -1e30, 1e30), check_threads(threads)
    x = _law("student", student, temperature, threads)
    y = _law("teacher", teacher, temperature, threads)
    cost = pairwise_distance(x, y, "l1", threads=threads).astype(np.float64, copy=False)
    if mode == "unrolled":
        value, plan, by_cost = unrolled_sinkhorn(cost, epsilon, iterations, threads=threads)
        error = np.abs(plan.sum(axis=1) - 1).sum()  # columns are divided last
    else:
        ones = np.ones(batch)
        found = sinkhorn(
            ones, ones, cost, epsilon=epsilon, max_iterations=_MOST_ITERATIONS, tolerance=_TOLERANCE * batch, threads=threads
        )  # fmt: skip
        # KL(P | 1 x 1) = -H(P) - batch + batch^2: what it has over -H does not depend on the plan, and its gradient is the plan.
        value, plan, error = found.value - epsilon * (batch**2 - batch), found.plan, found.marginal_error
        by_cost = plan
    gradient = distance_gradient(by_cost.astype(x.dtype, copy=False), x, y, "l1", threads=threads)
    softmax_gradient(x, gradient, temperature, weight=scale, threads=threads)
    rows = scale * (plan * cost).sum(axis=1)
    return Loss(scale * float(value), gradient, rows, {"marginal_error": float(error)})


def _law(name: str, logits: np.ndarray, temperature: Any, threads: int) -> np.ndarray:
    """The softmax of each row."""
    try:
        return softmax(logits, temperature, threads=threads)
    except NotFiniteError:
        top = logits.max(axis=1)  # NaN where there is one
        row = int(np.argmax(~np.isfinite(top)))
        raise NotFiniteError(f"{name}: row {row} holds a NaN or +inf, or nothing but -inf") from None
