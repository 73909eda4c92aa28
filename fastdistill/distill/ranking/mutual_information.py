"""MI-alpha: a lower bound of what a student's representations tell of the teacher's, between InfoNCE and TUBA."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_flag, check_number
from fastdistill.distill.loss import Loss, Reduction, counted
from fastdistill.errors import ArgumentError, NotFiniteError


class MutualInformationGradient(NamedTuple):
    """The gradient of MI-alpha.

    Attributes
    ----------
    scores : np.ndarray (n, n)
        by the critic's scores, in their dtype
    baseline : np.ndarray float64 (n,)
        by the baseline; 0 where alpha is 1
    """

    scores: np.ndarray
    baseline: np.ndarray


def mi_alpha(
    scores: np.ndarray,
    baseline: Any = None,
    *,
    alpha: float = 1.0,
    leave_one_out: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """-I_alpha, the bound of the mutual information of n pairs of representations (Poole et al. 2019; He et al. 2021).

    With m_j = mean_i e^{S_ij} and u_j = alpha m_j + (1 - alpha) e^{b_j}, row j is -1 - S_jj + log u_j + m_j / u_j:

    - alpha = 1: InfoNCE, at most log n, with little variance
    - alpha = 0: TUBA, with leave_one_out without bias; with b = 1 the bound of Nguyen, Wainwright and Jordan

    Parameters
    ----------
    scores : float32 or float64 (n, n)
        S_ij, a critic's score of the teacher's representation i and the student's j
    baseline : float (n,), optional
        b_j; needed where alpha is below 1
    alpha : float, default 1.0
        0 to 1
    leave_one_out : bool, default False
        whether m_j is the mean over the others, i != j. A pair alone then costs 0
    weights : float (n,), optional
        of pairs, at least 0; None: 1 each. A pair of weight 0 is not read, and is no other's negative
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of several batches that this is one of, where the reduction is "mean"; negatives come from this batch alone
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient: a MutualInformationGradient

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row; where alpha is 0, the pair whose scores are so far above its baseline that their
        ratio is no number any more

    Notes
    -----
    The value depends on n: where alpha is 1 it is at least -log n, so it does not compare batches of different sizes.
    """
    size, _ = check_array("scores", scores, REAL, ("n", "n"))
    check_array("scores", scores, REAL, (size, size))
    alpha = check_number("alpha", alpha, 0, 1)
    leave_one_out, wanted = check_flag("leave_one_out", leave_one_out), check_flag("gradient", gradient)
    reduce = Reduction(size, weights, reduction, total_weight)
    kept = np.flatnonzero(reduce.weights > 0)
    if baseline is None and alpha < 1:
        raise ArgumentError(f"baseline must be given where alpha is below 1, got None and alpha {alpha}")
    b = np.zeros(size) if baseline is None else as_array("baseline", baseline, np.float64, (size,))
    b = counted("baseline", b, reduce.weights)[kept]
    s = counted("scores", np.where((reduce.weights > 0)[None, :], scores, 0), reduce.weights)[np.ix_(kept, kept)]
    rows, by_scores, by_baseline = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    others = len(kept) - leave_one_out
    if others > 0:
        negatives = np.where(np.eye(len(kept), dtype=bool), -np.inf, s) if leave_one_out else s
        best = negatives.max(axis=0)
        log_m = best + np.log(np.exp(negatives - best).sum(axis=0)) - np.log(others)
        with np.errstate(divide="ignore", over="ignore"):
            log_u = np.logaddexp(np.log(alpha) + log_m, np.log(1 - alpha) + b)
            ratio = np.exp(log_m - log_u)
        if not np.isfinite(ratio).all():
            pair = int(kept[np.argmin(np.isfinite(ratio))])
            raise NotFiniteError(f"baseline: pair {pair} is too far below its scores for a ratio")
        rows[kept] = -1 - s.diagonal() + log_u + ratio
        scale = reduce.scale[kept]
        # d row_j / dm_j = ((alpha + 1) - alpha ratio_j) / u_j, and dm_j / dS_ij = e^{S_ij} / others.
        share = np.exp(negatives - log_m) / others * ratio  # e^{S_ij} / (others u_j)
        by_kept = share * (alpha + 1 - alpha * ratio)
        by_kept[np.diag_indices(len(kept))] -= 1
        by_scores[np.ix_(kept, kept)] = by_kept * scale
        if alpha < 1:
            by_baseline[kept] = np.exp(np.log(1 - alpha) + b - log_u) * (1 - ratio) * scale
    if not wanted:
        return reduce.loss(rows)
    return reduce.loss(rows, MutualInformationGradient(by_scores.astype(scores.dtype, copy=False), by_baseline))
