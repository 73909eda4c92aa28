"""CPRD: the order of a query's hard negatives, as far as the teacher finds them plausible."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_flag, check_integer, check_number
from fastdistill.distill.loss import IGNORED, Loss, Reduction, as_labels, counted
from fastdistill.distill.ranking.ranking import listed
from fastdistill.distill.ranking.top_ids import top_ids
from fastdistill.errors import ArgumentError
from fastdistill.messages import short

_NONE = -1  # the place of a negative where there is no more


def hard_negatives(similarities: np.ndarray, labels: Any, *, top_k: int = 16, groups: Any = None) -> np.ndarray:
    """The candidates that a student takes for a query's answer most readily, those that are right left out.

    Parameters
    ----------
    similarities : float32 or float64 (n, C)
        of each query and each candidate; a candidate with -inf is none
    labels : int (n,)
        the right candidate of each query; -100: a query that has no negatives
    top_k : int, default 16
        so many negatives
    groups : int (C,), optional
        what each candidate is about, as captions of one image: all of the right one's group are left out

    Returns
    -------
    np.ndarray int32 (n, at most top_k)
        the hardest first, ties to the lowest; -1 where there are no more

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the row
    """
    rows, candidates = check_array("similarities", similarities, REAL, ("n", "C"))
    if candidates == 0:
        raise ArgumentError(f"similarities must have at least one column, got shape {similarities.shape}")
    top_k = check_integer("top_k", top_k, 1, 2**31 - 1)
    right = as_labels(labels, rows, candidates)
    found = counted("similarities", similarities, right != IGNORED, bans=True)
    group = np.arange(candidates) if groups is None else as_array("groups", groups, np.int64, (candidates,))
    found[group[np.where(right == IGNORED, 0, right)][:, None] == group] = -np.inf
    found[right == IGNORED] = -np.inf
    ids = top_ids(found, top_k)
    return np.where(np.take_along_axis(found, ids, axis=1) > -np.inf, ids, _NONE).astype(np.int32)


def partial_ranking(
    student: np.ndarray,
    teacher: np.ndarray,
    negatives: Any,
    *,
    threshold: Any = None,
    temperature: float = 1.0,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """The Plackett-Luce likelihood of the teacher's order of hard negatives (Chen et al., arXiv 2407.07479).

    The negatives of a query stand in the order of the teacher's scores, best first. Those before the first invalid one
    are ranked, by terms log sum_{l >= k} e^{s_l} - s_k; the invalid ones only compete.

    Parameters
    ----------
    student : float32 or float64 (n, C)
        similarities of each query and each candidate; -inf is none
    teacher : float32 or float64 (n, K)
        scores of the negatives, in their order; -inf is never valid. Of these the order matters, and the threshold
    negatives : int (n, K)
        columns of student, from `hard_negatives`; -1 where there is none
    threshold : float or float (n,), optional
        a negative whose score is below it is invalid; None: all are valid
    temperature : float, default 1.0
        that the similarities are divided by, above 0
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of all rows with valid negatives in the whole batch that these are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient (n, C), in the student's dtype, 0 but at negatives; info: valid int32 (n,), so many of each row;
        total_weight, the weight of the rows that have any, which alone count in the mean

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    rows, candidates = check_array("student", student, REAL, ("n", "C"))
    _, length = check_array("teacher", teacher, REAL, (rows, "K"))
    if 0 in (candidates, length):
        raise ArgumentError(f"student and teacher must have columns, got shapes {student.shape} and {teacher.shape}")
    temperature = check_number("temperature", temperature, 1e-30, 1e30)
    wanted = check_flag("gradient", gradient)
    ids = _negatives(negatives, rows, length, candidates)
    given = Reduction(rows, weights).weights * (ids >= 0).any(axis=1)
    least = as_array("threshold", -np.inf if threshold is None else threshold, np.float64, (...,))
    if least.shape not in ((), (rows,)):
        raise ArgumentError(f"threshold must have shape () or ({rows},), got {short(least.shape)}")
    least = np.broadcast_to(least, rows)
    if np.isnan(least[given > 0]).any():
        raise ArgumentError("threshold must hold no NaN")
    s = counted("student", student, given, bans=True) / temperature
    t = counted("teacher", np.where(ids >= 0, teacher, -np.inf), given, bans=True)
    s = np.where(ids >= 0, np.take_along_axis(s, np.maximum(ids, 0), axis=1), -np.inf)
    t = np.where(s > -np.inf, t, -np.inf)
    # Of equal scores the student's favourite is first; what is not there comes last.
    order = np.lexsort((-s, -t), axis=1)
    scores, ranked = (np.take_along_axis(each, order, axis=1) for each in (s, t))
    valid = (ranked > -np.inf) & (ranked >= least[:, None])
    valid &= (given > 0)[:, None]
    reduce = Reduction(rows, np.where(valid.any(axis=1), given, 0), reduction, total_weight)
    values, by_scores, _ = listed(scores, valid.astype(np.float64))
    info = {"valid": valid.sum(axis=1, dtype=np.int32), "total_weight": float(reduce.weights.sum())}
    if not wanted:
        return reduce.loss(values, **info)
    by_scores *= reduce.scale[:, None] / temperature
    places = np.take_along_axis(ids, order, axis=1)
    by_student = np.zeros(student.shape, student.dtype)
    row, column = np.nonzero(places >= 0)
    by_student[row, places[row, column]] = by_scores[row, column]
    return reduce.loss(values, by_student, **info)


def _negatives(given: Any, rows: int, length: int, candidates: int) -> np.ndarray:
    """int32 (n, K), each column of a row at most once."""
    ids = as_array("negatives", given, np.int32, (rows, length))
    wrong = ((ids < _NONE) | (ids >= candidates)).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(f"negatives must lie in -1..{candidates - 1}, got {ids[row].tolist()[:8]} in row {row}")
    ordered = np.sort(ids, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise ArgumentError(f"negatives must differ within a row; row {int(twice.argmax())} has one twice")
    return ids
