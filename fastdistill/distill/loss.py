"""What every objective gives, and how rows become one number: said here once, so that it means the same everywhere."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_number
from fastdistill.errors import ArgumentError, NotFiniteError

IGNORED = -100  # the label of a row that does not count
_REDUCTIONS = "mean", "sum"
_LEAST_TOTAL = 1e-300  # of weights: 1 over it is a number still


class Loss(NamedTuple):
    """An objective and its gradient.

    Attributes
    ----------
    value : float
        the sum of weights times rows, over the total weight where the reduction is "mean"
    gradient : np.ndarray, or a NamedTuple of arrays (n, vocab)
        of value, by the student, in its shape; by each input that is trained, where there are several; None where none
        was asked for
    rows : np.ndarray float64 (n,)
        the value of each row; 0 where its weight is 0
    info : dict[str, np.ndarray | float]
        what else was found on the way, by name
    """

    value: float
    gradient: Any
    rows: np.ndarray
    info: dict[str, Any]


class Reduction:
    """How rows become one value: `value = factor * sum_n weights[n] * rows[n]`.

    "mean" divides by the total weight, which is that of all rows given, or `total_weight` where these rows are a part of a
    batch: then values and gradients of the parts sum up to those of the whole, however it was split.  A mean of means
    does not.  Where the total is 0, so is the factor.

    Attributes
    ----------
    weights : np.ndarray float64 (n,)
    factor : float
    """

    __slots__ = ("factor", "weights")

    def __init__(
        self,
        rows: int,
        weights: Any = None,
        reduction: str = "mean",
        total_weight: float | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        check_choice("reduction", reduction, _REDUCTIONS)
        if weights is None:
            self.weights = np.ones(rows)
        else:
            given = weights.astype(np.float64) if getattr(weights, "dtype", None) == np.bool_ else weights  # a mask
            self.weights = as_array("weights", given, np.float64, (rows,))
            if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
                wrong = int(np.argmin(np.isfinite(self.weights) & (self.weights >= 0)))
                raise ArgumentError(f"weights must be finite and at least 0, got {self.weights[wrong]} in row {wrong}")
        if labels is not None:
            self.weights = np.where(labels == IGNORED, 0.0, self.weights)
        if total_weight is not None:
            total_weight = check_number("total_weight", total_weight, 0, 1e300)
        if reduction == "sum":
            if total_weight is not None:
                raise ArgumentError('total_weight belongs to reduction="mean", got reduction="sum"')
            self.factor = 1.0
        else:
            total = _sum("weights", self.weights) if total_weight is None else total_weight
            if 0 < total < _LEAST_TOTAL:
                raise ArgumentError(f"the total weight must be 0 or at least {_LEAST_TOTAL:g}, got {total:g}")
            self.factor = 1 / total if total > 0 else 0.0

    @property
    def scale(self) -> np.ndarray:
        """float64 (n,): what a row's own gradient is multiplied by."""
        return self.weights * self.factor

    def value(self, rows: np.ndarray) -> float:
        """The one number: an exact sum, rounded once, so that no order of rows matters."""
        with np.errstate(over="ignore"):
            return self.factor * _sum("weights times rows", self.weights * rows)

    def loss(self, rows: np.ndarray, gradient: Any = None, **info: Any) -> Loss:
        """The Loss of these rows; the gradient is taken as it is."""
        return Loss(self.value(rows), gradient, rows, info)


def _sum(name: str, numbers: np.ndarray) -> float:
    """Exact, rounded once; no order matters."""
    try:
        total = math.fsum(numbers)
    except (OverflowError, ValueError):  # on the way; infinities of both signs
        total = math.nan
    if not math.isfinite(total):
        raise ArgumentError(f"{name} must sum up to a float, got numbers up to {np.abs(numbers).max():g}")
    return total


def as_labels(labels: Any, rows: int, vocab: int) -> np.ndarray:
    """int32 (rows,): tokens below vocab, or IGNORED."""
    found = as_array("labels", labels, np.int32, (rows,))
    wrong = (found != IGNORED) & ((found < 0) | (found >= vocab))
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(
            f"labels must be tokens from 0 to {vocab - 1}, or {IGNORED} to ignore a row, got {found[row]} in row {row}"
        )
    return found


def counted(name: str, array: np.ndarray, weights: np.ndarray, *, bans: bool = False) -> np.ndarray:
    """float64, as the array, with zeros in rows of weight 0, which may hold anything; the others are finite.

    With bans, -inf may stand in places of a row, but not in all.
    """
    found = np.where(weights.reshape(-1, *[1] * (array.ndim - 1)) > 0, array, 0).astype(np.float64)
    each = tuple(range(1, found.ndim))
    right = (found < np.inf).all(axis=each)
    right &= (found > -np.inf).any(axis=each) if bans else (found > -np.inf).all(axis=each)
    if not right.all():
        what = "a NaN or +inf, or nothing but -inf" if bans else "a NaN or an infinity"
        raise NotFiniteError(f"{name}: row {int(np.argmin(right))} holds {what}")
    return found
