"""Which rows of a batch are trained on, by a score of each row.

A selector gives weights float64 (n,) for an objective's `weights`: those that it was given, where it keeps a row, and 0
elsewhere. So selectors chain, each with the weights of the one before it, and rows of weight 0 are read by none of
them. Weights are constants: no gradient goes through a selection.
"""

from __future__ import annotations

import math

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_number
from fastdistill.distill.loss import Reduction, counted
from fastdistill.errors import ArgumentError

_METHODS = "quantile", "exact"
_ROUNDINGS = 2.0**-52  # a fraction is rounded once where it is written, and once where it is multiplied: 2^-53 each


def top_fraction(
    scores: np.ndarray, fraction: float, *, weights: np.ndarray | None = None, method: str = "quantile"
) -> np.ndarray:
    """The weights of the rows with the highest scores, and 0 for all others.

    - quantile: rows at or above the quantile of 1 - fraction, linearly interpolated, of the scores that count: of k
      rows, 1 + floor(fraction (k - 1)) where no two scores are equal, and more where some are tied at the threshold
      (Hu et al. 2025, AdaSPEC)
    - exact: ceil(fraction k) rows; of equal scores, those of the first rows

    Parameters
    ----------
    scores : float64 (n,)
    fraction : float
        0..1; 0 keeps nothing
    weights : float64 (n,), optional
        of the rows; rows of weight 0 are not among those that a fraction is taken of. None: 1 each
    method : str, default "quantile"
        "quantile" or "exact"

    Returns
    -------
    float64 (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the row

    Notes
    -----
    A quantile belongs to the rows given: another cut into micro-batches selects other rows. An objective's mean is over
    the rows kept; `total_weight=weights.sum()` makes it one over all that count.
    """
    scores = as_array("scores", scores, np.float64, ("rows",))
    weights = Reduction(len(scores), weights).weights
    fraction = check_number("fraction", fraction, 0, 1)
    check_choice("method", method, _METHODS)
    return _top(counted("scores", scores, weights), fraction, weights, method)


def _top(scores: np.ndarray, fraction: float, weights: np.ndarray, method: str) -> np.ndarray:
    selected = np.zeros(len(scores))
    rows = np.flatnonzero(weights)
    if len(rows) == 0 or fraction == 0:
        return selected
    among = scores[rows]
    if method == "quantile":
        kept = rows[among >= np.quantile(among, 1 - fraction)]
    else:
        count = math.ceil(fraction * len(rows) * (1 - _ROUNDINGS))  # 0.07 of 100 rows are 7, not 8
        kept = rows[np.argsort(-among, kind="stable")[:count]]
    selected[kept] = weights[kept]
    return selected


def reference_gap(
    student_rows: np.ndarray,
    reference_rows: np.ndarray,
    fraction: float = 0.4,
    *,
    weights: np.ndarray | None = None,
    method: str = "quantile",
) -> np.ndarray:
    """The weights of the rows where a student's loss is furthest above a reference model's, and 0 for others.

    The reference is a model of the student's size that has been distilled already. Where it does well and the student
    does not, there is something to learn; rows that are hard for both have a small gap and are left out (Hu et al.
    2025, AdaSPEC).

    Parameters
    ----------
    student_rows, reference_rows : float64 (n,)
        the divergence of each row from the same teacher, as `Loss.rows` has it
    fraction : float, default 0.4
        0..1, of the rows that count
    weights : float64 (n,), optional
        of the rows; None: 1 each
    method : str, default "quantile"
        of `top_fraction`

    Returns
    -------
    float64 (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    student_rows = as_array("student_rows", student_rows, np.float64, ("rows",))
    reference_rows = as_array("reference_rows", reference_rows, np.float64, student_rows.shape)
    weights = Reduction(len(student_rows), weights).weights
    gap = counted("student_rows", student_rows, weights) - counted("reference_rows", reference_rows, weights)
    fraction = check_number("fraction", fraction, 0, 1)
    check_choice("method", method, _METHODS)
    return _top(gap, fraction, weights, method)


def clip_rows(
    rows: np.ndarray, *, cap: float | None = None, quantile: float | None = None, weights: np.ndarray | None = None
) -> np.ndarray:
    """The weights of the rows whose loss is at most a cap, and 0 for those above it.

    With `min(row, cap)` for a row's loss, a row above the cap keeps its value and loses its gradient (Jin et al. 2026,
    UniSD). Rows at the cap keep theirs.

    Parameters
    ----------
    rows : float64 (n,)
        as `Loss.rows` has it
    cap : float, optional
        at least 0
    quantile : float, optional
        0..1: the cap is this quantile of the rows that count, linearly interpolated
    weights : float64 (n,), optional
        of the rows; None: 1 each

    Returns
    -------
    float64 (n,)

    Raises
    ------
    ArgumentError
        where not one of cap and quantile is given, among others
    NotFiniteError
        which names the row

    Notes
    -----
    For the mean of `min(row, cap)` give the objective `total_weight=weights.sum()` of all rows that count, and add what
    the clipped rows are worth, which is a constant.
    """
    rows = as_array("rows", rows, np.float64, ("rows",))
    weights = Reduction(len(rows), weights).weights
    rows = counted("rows", rows, weights)
    if (cap is None) == (quantile is None):
        raise ArgumentError("one of cap and quantile must be given, and not the other")
    among = rows[weights > 0]
    if quantile is not None:
        quantile = check_number("quantile", quantile, 0, 1)
        limit = np.quantile(among, quantile) if len(among) else 0.0
    else:
        limit = check_number("cap", cap, 0, math.inf)
    return np.where(rows <= limit, weights, 0.0)
