"""Pairs of candidates that the teacher tells apart, and by how much the student does."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, check_array, check_choice, check_flag, check_number
from fastdistill.distill.loss import Loss, Reduction, counted
from fastdistill.errors import ArgumentError

_MARGINS = {"hinge": 1.0, "logistic": 0.0}


def pairwise_ranking(
    student: np.ndarray,
    teacher: np.ndarray,
    kind: str = "hinge",
    *,
    margin: float | None = None,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """What it costs that the student's scores do not order pairs of candidates as the teacher's do.

    The mean over pairs that the teacher orders, i above j, with d = student_i - student_j:

    - hinge: max(0, margin - d) (Herbrich et al. 2000)
    - logistic: log(1 + e^(margin - d)) (Burges et al. 2005, RankNet)

    Parameters
    ----------
    student : float32 or float64 (n, K)
        scores of K candidates; -inf is a candidate that is not there
    teacher : float32 or float64 (n, K)
        scores of the same candidates; -inf is below all others. Of these the order matters and nothing else: candidates with
        equal scores are no pair
    kind : str, default "hinge"
        "hinge" or "logistic"
    margin : float, optional
        by which the better one should lead; None: 1 of the hinge, 0 of the logistic loss
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of all rows that have pairs in the whole batch that these are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient (n, K), in the student's dtype; info: pairs int64 (n,), so many of each row; total_weight, the weight of the
        rows that have any, which alone count in the mean

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    Where margin = d the slope of the hinge counts as 0. Each row takes memory of K^2.
    """
    rows, candidates = check_array("student", student, REAL, ("n", "K"))
    check_array("teacher", teacher, REAL, (rows, candidates))
    if candidates == 0:
        raise ArgumentError(f"student must have at least one column, got shape {student.shape}")
    check_choice("kind", kind, _MARGINS)
    margin = _MARGINS[kind] if margin is None else check_number("margin", margin, -1e30, 1e30)
    wanted = check_flag("gradient", gradient)
    given = Reduction(rows, weights).weights
    s = counted("student", student, given, bans=True)
    t = counted("teacher", teacher, given, bans=True)
    there = s > -np.inf
    s = np.where(there, s, 0)
    better = (t[:, :, None] > t[:, None, :]) & there[:, :, None] & there[:, None, :]
    better &= (given > 0)[:, None, None]
    pairs = better.sum(axis=(1, 2))
    reduce = Reduction(rows, np.where(pairs > 0, given, 0), reduction, total_weight)
    lack = margin - (s[:, :, None] - s[:, None, :])
    cost = np.maximum(lack, 0) if kind == "hinge" else np.logaddexp(0, lack)
    share = better / np.maximum(pairs, 1)[:, None, None]
    values = (share * cost).sum(axis=(1, 2))
    info = {"pairs": pairs, "total_weight": float(reduce.weights.sum())}
    if not wanted:
        return reduce.loss(values, **info)
    slope = (lack > 0) * share if kind == "hinge" else np.exp(-np.logaddexp(0, -lack)) * share
    by_student = (slope.sum(axis=1) - slope.sum(axis=2)) * reduce.scale[:, None]
    return reduce.loss(values, by_student.astype(student.dtype), **info)
