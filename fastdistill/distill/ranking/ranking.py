"""Lists in rank order, and how likely a student's scores make them: Plackett-Luce, by suffixes of the list."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_flag, check_integer, check_number
from fastdistill.distill.loss import IGNORED, Loss, Reduction, as_labels, counted
from fastdistill.distill.ranking.top_ids import top_ids
from fastdistill.errors import ArgumentError
from fastdistill.messages import short

_MOST = 2**31 - 1


class ListGradient(NamedTuple):
    """The gradient of a list's loss.

    Attributes
    ----------
    scores : np.ndarray (n, K)
        by the scores of the list, in their dtype
    rest : np.ndarray (n,) or None
        by the score of what is not listed, in the same dtype; None where none was given
    """

    scores: np.ndarray
    rest: np.ndarray | None


def plackett_luce(
    scores: np.ndarray,
    rank_weights: Any = None,
    *,
    rest: Any = None,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """The negative log-likelihood of lists that are in rank order, best first (Plackett 1975, Luce 1959).

    sum_k a_k (log sum_{l >= k} e^{s_l} - s_k): at each rank the listed item is chosen among those not chosen before.

    Parameters
    ----------
    scores : float32 or float64 (n, K)
        of the items of each list, best first; -inf is an item that is not there: no term of its own, no competitor
    rank_weights : float (n, K) or (K,), optional
        a_k, at least 0; None: 1 each
    rest : float (n,), optional
        the log-sum-exp of the scores of all that is not listed, which competes at every rank; -inf where there is nothing
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient: a ListGradient

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    With a = (1, 0, ..., 0) it is cross entropy, with a of ones ListMLE. The gradient is e^{s_j} sum_{k <= j} a_k e^{-suffix_k}
    - a_j, taken in logarithms: no exponent is above 0 but by log a_k.
    """
    rows, length = check_array("scores", scores, REAL, ("n", "K"))
    if length == 0:
        raise ArgumentError(f"scores must have at least one column, got shape {scores.shape}")
    wanted = check_flag("gradient", gradient)
    reduce = Reduction(rows, weights, reduction, total_weight)
    s = counted("scores", scores, reduce.weights, bans=True)
    ranks = _rank_weights(rank_weights, rows, length, reduce.weights)
    others = None
    if rest is not None:
        others = np.where(reduce.weights > 0, as_array("rest", rest, np.float64, (rows,)), 0)
        counted("rest", np.maximum(others, -1e300), reduce.weights)  # -inf is nothing at all
    values, by_scores, by_rest = listed(s, ranks, others)
    values = np.where(reduce.weights > 0, values, 0.0)
    if not wanted:
        return reduce.loss(values)
    by_scores = (by_scores * reduce.scale[:, None]).astype(scores.dtype)
    by_rest = (by_rest * reduce.scale).astype(scores.dtype)
    return reduce.loss(values, ListGradient(by_scores, None if rest is None else by_rest))


def _rank_weights(given: Any, rows: int, length: int, weights: np.ndarray) -> np.ndarray:
    """float64 (n, K), finite and at least 0."""
    if given is None:
        return np.ones((rows, length))
    found = as_array("rank_weights", given, np.float64, (...,))
    if found.shape not in ((length,), (rows, length)):
        raise ArgumentError(f"rank_weights must have shape ({length},) or ({rows}, {length}), got {short(found.shape)}")
    found = np.where(weights[:, None] > 0, found, 0)
    right = np.isfinite(found) & (found >= 0)
    if not right.all():
        wrong = tuple(int(index) for index in np.argwhere(~right)[0])
        raise ArgumentError(
            f"rank_weights must be finite and at least 0, got {found[wrong]} at rank {wrong[1]} of row {wrong[0]}"
        )
    return found


def listed(
    scores: np.ndarray, ranks: np.ndarray, rest: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of float64 scores (n, K), weights of ranks (n, K) and rest (n,): values (n,), gradients by scores and by rest.

    An item with a score of -inf is not there, nor is a rest of -inf or None.
    """
    if rest is None:
        rest = np.full(len(scores), -np.inf)
    there = scores > -np.inf
    ranks = np.where(there, ranks, 0)
    from_last = np.concatenate([rest[:, None], scores[:, ::-1]], axis=1)
    suffix = np.logaddexp.accumulate(from_last, axis=1)[:, :0:-1]
    terms = np.subtract(suffix, scores, out=np.zeros_like(scores), where=there)
    with np.errstate(divide="ignore"):
        log_ranks = np.log(ranks)
    prefix = np.subtract(log_ranks, suffix, out=np.full_like(scores, -np.inf), where=there)
    prefix = np.logaddexp.accumulate(prefix, axis=1)
    by_scores = np.exp(scores + prefix) - ranks
    return (ranks * terms).sum(axis=1), by_scores, np.exp(rest + prefix[:, -1])


def _logits(student: np.ndarray, teacher: np.ndarray) -> tuple[int, int]:
    """The shape (n, vocab) of both."""
    rows, vocab = check_array("student", student, REAL, ("n", "vocab"))
    check_array("teacher", teacher, REAL, (rows, vocab))
    if vocab == 0:
        raise ArgumentError(f"student must have at least one column, got shape {student.shape}")
    return rows, vocab


def pld(
    student: np.ndarray,
    teacher: np.ndarray,
    labels: Any = None,
    *,
    teacher_temperature: float = 1.0,
    top_k: int | None = 64,
    renormalise: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """Plackett-Luce distillation: the label first, then the teacher's order, weighted by the teacher's law.

    The list is the label and the top_k tokens that the teacher likes best beside it; the weight of a rank is the
    teacher's probability of its token; all tokens that are not listed compete at every rank, so that the terms of the
    list are those of the full one (Bassam, Zhu and Bian, arXiv 2506.12542).

    Parameters
    ----------
    student : float32 or float64 (n, vocab)
        logits; a token with -inf is in no list and does not compete
    teacher : float32 or float64 (n, vocab)
        logits; -inf is a weight of 0, at the end of the list. Ties go to the lowest token
    labels : int (n,), optional
        the right tokens; -100 leaves a row out. None: the teacher's best
    teacher_temperature : float, default 1.0
        that the teacher's logits are divided by for the weights, above 0; the student's are taken as they are
    top_k : int, optional, default 64
        so many tokens beside the label; None: all
    renormalise : bool, default False
        whether the weights of a list are divided by their sum. Then a list that is cut is not the full one without its
        last terms.
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient (n, vocab), in the student's dtype; info: order int32 (n, at most top_k + 1), the list of each row

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    A label that the teacher finds unlikely has a small weight: that is the method. Convex in the student's logits.
    """
    rows, vocab = _logits(student, teacher)
    temperature = check_number("teacher_temperature", teacher_temperature, 1e-30, 1e30)
    beside = vocab if top_k is None else check_integer("top_k", top_k, 1, _MOST)
    renormalise, wanted = check_flag("renormalise", renormalise), check_flag("gradient", gradient)
    tokens = None if labels is None else as_labels(labels, rows, vocab)
    reduce = Reduction(rows, weights, reduction, total_weight, tokens)
    s = counted("student", student, reduce.weights, bans=True)
    t = counted("teacher", teacher, reduce.weights, bans=True)
    liked = t
    if tokens is not None:
        liked = t.copy()
        np.put_along_axis(liked, np.where(tokens == IGNORED, 0, tokens)[:, None], np.inf, axis=1)
    order = top_ids(liked, beside + 1)
    with np.errstate(over="ignore"):  # what is so far below the best has no weight
        law = np.exp((t - t.max(axis=1, keepdims=True)) / temperature)
    ranks = np.take_along_axis(law, order, axis=1)
    total = (ranks if renormalise else law).sum(axis=1, keepdims=True)
    ranks = np.divide(ranks, total, out=np.zeros_like(ranks), where=total > 0)
    scores = np.take_along_axis(s, order, axis=1)
    if order.shape[1] == vocab:
        values, by_scores, _ = listed(scores, ranks)
        by_student = np.empty_like(s)
    else:
        np.put_along_axis(s, order, -np.inf, axis=1)
        best = s.max(axis=1, keepdims=True)
        by_student = np.exp(s - np.where(best > -np.inf, best, 0))
        mass = by_student.sum(axis=1)
        with np.errstate(divide="ignore"):
            rest = np.where(mass > 0, best[:, 0] + np.log(mass), -np.inf)
        values, by_scores, by_rest = listed(scores, ranks, rest)
        by_student *= np.divide(by_rest, mass, out=np.zeros(rows), where=mass > 0)[:, None]
    values = np.where(reduce.weights > 0, values, 0.0)
    info = {"order": order.astype(np.int32)}
    if not wanted:
        return reduce.loss(values, **info)
    np.put_along_axis(by_student, order, by_scores, axis=1)
    by_student *= reduce.scale[:, None]
    return reduce.loss(values, by_student.astype(student.dtype, copy=False), **info)


def preference_ranking(
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    top_k: int = 10,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """TSD-KD's indirect distillation: how the teacher ranks the student's own favourites (Kim and Baek, arXiv 2603.13260).

    The student's top_k tokens in the order of the teacher's logits, best first, and the Plackett-Luce likelihood of that
    order: the suffix form, which raises what the teacher prefers. (A sum over prefixes of the same list is the
    likelihood of the reversed order.)

    Parameters
    ----------
    student : float32 or float64 (n, vocab)
        logits; -inf is no candidate. Which tokens are candidates is taken as given: no gradient goes through it
    teacher : float32 or float64 (n, vocab)
        logits; a candidate with -inf is last. Ties go to the student's favourite
    top_k : int, default 10
        so many candidates
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient (n, vocab), in the student's dtype, 0 but at candidates; info: order int32 (n, at most top_k), the candidates
        of each row, the teacher's favourite first

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    rows, _ = _logits(student, teacher)
    top_k, wanted = check_integer("top_k", top_k, 1, _MOST), check_flag("gradient", gradient)
    reduce = Reduction(rows, weights, reduction, total_weight)
    s = counted("student", student, reduce.weights, bans=True)
    t = counted("teacher", teacher, reduce.weights, bans=True)
    order = top_ids(s, top_k)
    liked = np.argsort(-np.take_along_axis(t, order, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(order, liked, axis=1)
    scores = np.take_along_axis(s, order, axis=1)
    values, by_scores, _ = listed(scores, np.ones_like(scores))
    values = np.where(reduce.weights > 0, values, 0.0)
    info = {"order": order.astype(np.int32)}
    if not wanted:
        return reduce.loss(values, **info)
    by_student = np.zeros(student.shape, student.dtype)
    np.put_along_axis(by_student, order, (by_scores * reduce.scale[:, None]).astype(student.dtype), axis=1)
    return reduce.loss(values, by_student, **info)
