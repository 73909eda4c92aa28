"""SinKD: the cost of transport between a batch of the student's laws and the teacher's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, check_array, check_choice, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import distance_gradient, pairwise_distance, softmax, softmax_gradient, unrolled_sinkhorn
from fastdistill.kernels.threads import check_threads
from fastdistill.transport import sinkhorn

_MODES = "unrolled", "entropic"
_TOLERANCE, _MOST_ITERATIONS = 1e-10, 10_000  # of the entropic mode: marginal error, as a share of the mass


class Loss(NamedTuple):
    """An objective and its gradient.

    Attributes
    ----------
    value : float
        the loss: L1 distances between laws, 0 to 2, times mass and weight
    gradient : np.ndarray (batch, vocab), as the logits
        of value by the student's logits
    marginal_error : float
        how far the plan's rows and columns are from summing to 1, in L1
    """

    value: float
    gradient: np.ndarray
    marginal_error: float


def sinkhorn_loss(
    student_logits: np.ndarray,
    teacher_logits: np.ndarray,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    iterations: int = 20,
    weight: float = 1.0,
    mode: str = "unrolled",
    threads: int | None = None,
) -> Loss:
    """The cost of carrying a batch of the student's laws to the teacher's; a law's way is the L1 distance, 0 to 2.

    With x and y the softmax of student_logits / temperature and teacher_logits / temperature and W_ij = |x_i - y_j|:

    - unrolled: weight <P, W>, P from exp(-W / epsilon) by so many divisions of rows, then columns, by their sums; its
      exact gradient through all of them (Cui et al. 2024, SinKD)
    - entropic: weight (min <P, W> - epsilon H(P)) over plans whose rows and columns sum to 1, H(P) = -sum P log P, at
      its optimum: iterations does not matter; negative where epsilon is large

    Parameters
    ----------
    student_logits, teacher_logits : float32 or float64 (batch, vocab)
        of one shape and dtype; -inf is a ban. Rows that are padding do not belong here: they would take in mass.
    temperature : float, default 2.0
        that the logits are divided by, above 0
    epsilon : float, default 0.1
        above 0, in the unit of the L1 distance
    iterations : int, default 20
        so many divisions of rows and columns
    weight : float, default 1.0
        what value and gradient are multiplied by
    mode : str, default "unrolled"
        "unrolled" or "entropic"
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    Loss
        gradient (batch, vocab), in the dtype of the logits

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    The rows' order does not matter to it: beside it an objective of each sample's own is needed.
    """
    batch, vocab = check_array("student_logits", student_logits, REAL, ("batch", "vocab"))
    check_array("teacher_logits", teacher_logits, student_logits.dtype.type, (batch, vocab))
    if 0 in (batch, vocab):
        raise ArgumentError(f"student_logits must have rows and columns, got shape {student_logits.shape}")
    check_choice("mode", mode, _MODES)
    weight, threads = check_number("weight", weight, -1e30, 1e30), check_threads(threads)
    x = _law("student_logits", student_logits, temperature, threads)
    y = _law("teacher_logits", teacher_logits, temperature, threads)
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
        value, by_cost, error = found.value - epsilon * (batch**2 - batch), found.plan, found.marginal_error
    gradient = distance_gradient(by_cost.astype(x.dtype, copy=False), x, y, "l1", threads=threads)
    softmax_gradient(x, gradient, temperature, weight=weight, threads=threads)
    return Loss(weight * float(value), gradient, float(error))


def _law(name: str, logits: np.ndarray, temperature: Any, threads: int) -> np.ndarray:
    """The softmax of each row."""
    try:
        return softmax(logits, temperature, threads=threads)
    except NotFiniteError:
        top = logits.max(axis=1)  # NaN where there is one
        row = int(np.argmax(~np.isfinite(top)))
        raise NotFiniteError(f"{name}: row {row} holds a NaN or +inf, or nothing but -inf") from None
