"""Which masked positions a step of diffusion decoding commits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array, check_choice, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, ffi, lib, pointer
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.threads import check_threads

# Codes for C, which does not look at them where scores are given; fields of RowStatistics that each score is made of.
_SCORES = {"confidence": "FD_CONFIDENCE", "margin": "FD_MARGIN", "entropy": "FD_ENTROPY", "given": "FD_CONFIDENCE"}
_READ: dict[str, tuple[str, ...]] = {
    "confidence": ("log_prob",),
    "margin": ("top", "second", "log_sum_exp"),
    "entropy": ("entropy",),
    "given": (),
}
_THRESHOLDS = {"confidence": (0, 1), "margin": (0, 1), "entropy": (0, np.inf), "given": (-np.inf, np.inf)}
_MOST = 2**31 - 1


@dataclass(frozen=True)
class UnmaskRule:
    """How many of the best positions are taken. Positions rank by score, the highest first, ties by position.

    Parameters
    ----------
    score : str, default "confidence"
        - "confidence": log p of the best token, or of the one that was drawn
        - "margin": p of the best token minus p of the second
        - "entropy": minus the entropy
        - "given": any other, passed with the call
    threshold : float, optional
        passes while the confidence or the margin, in [0, 1], or a given score is no lower; the entropy, in nats, no
        higher
    factor : float, optional
        passes n while (n + 1) (1 - p) < factor, with p the n-th confidence; 1 is the bound below which greedy in
        parallel is greedy in sequence
    budget : float, optional
        passes while the entropies, in nats, sum to no more, the largest of them aside
    least : int, default 1
        so many at least, the best, where no limit is lower; 0 or more
    most : int, optional
        so many at most
    explore : int, default 0
        where fewer pass, they and the one of highest entropy among the others are taken, in place of `least`

    Raises
    ------
    ArgumentError

    Notes
    -----
    What is None limits nothing; a position has to pass all that is not.
    """

    score: str = "confidence"
    threshold: float | None = None
    factor: float | None = None
    budget: float | None = None
    least: int = 1
    most: int | None = None
    explore: int = 0

    def __post_init__(self) -> None:
        check_choice("score", self.score, _SCORES)
        for name, range in (("threshold", _THRESHOLDS[self.score]), ("factor", (0, np.inf)), ("budget", (0, np.inf))):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_number(name, value, *range))
        if self.factor is not None and self.score != "confidence":
            raise ArgumentError(f"factor bounds confidences: it needs the score confidence, got {self.score}")
        check_integer("least", self.least, 0, _MOST)
        if self.most is not None:
            check_integer("most", self.most, max(self.least, 1), _MOST)
        check_integer("explore", self.explore, 0, _MOST)


class Unmasked(NamedTuple):
    """What a step commits; of a single row (n,) count is a NumPy scalar.

    Attributes
    ----------
    chosen : bool (..., n)
        what is committed now
    count : int32 (...)
        how many were chosen
    ranks : int32 (..., n)
        0 the best; -1 where not eligible
    confidence : float32 (..., n)
        the score that ranked, bias included; NaN where not eligible
    """

    chosen: np.ndarray
    count: np.ndarray | np.int32  # type: ignore[assignment]
    ranks: np.ndarray
    confidence: np.ndarray


def unmask_select(
    statistics: RowStatistics | None,
    masked: np.ndarray,
    rule: UnmaskRule,
    *,
    quota: np.ndarray | int | None = None,
    log_probs: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    also: np.ndarray | None = None,
    threads: int | None = 1,
) -> Unmasked:
    """The best of the eligible positions, as many as the rule and the quota say: eligible is what is masked and has a score.

    Parameters
    ----------
    statistics : RowStatistics of (..., n) rows or None
        None where neither score nor budget nor explore needs them
    masked : bool (..., n)
    rule : UnmaskRule
        how many are taken
    quota : np.ndarray | int, optional
        at most so many of each row, int32 (...), or one number for all rows, 0 or more; without threshold, factor and
        budget just so many
    log_probs : float32 (..., n), optional
        of drawn tokens, in place of the best tokens' for the score confidence
    scores : float32 (..., n), optional
        for the score given
    bias : float32 (..., n), optional
        added to the score: log g lets a confidence count g times
    also : bool (..., n), optional
        taken too where eligible, whatever the limits
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    Unmasked

    Raises
    ------
    ArgumentError

    References
    ----------
    Nie et al. 2025, LLaDA; Wu et al. 2025, Fast-dLLM; Ben-Hamu et al. 2025, EB-sampler; see
    docs/kernels/unmask/unmask_select.md

    Examples
    --------
    >>> logits = np.log(np.array([[1, 9], [5, 5], [2, 8]], np.float32))
    >>> masked = np.array([True, True, True])
    >>> rule = fd.kernels.UnmaskRule("confidence", threshold=0.75)
    >>> fd.kernels.unmask_select(fd.kernels.row_statistics(logits), masked, rule).chosen
    array([ True, False,  True])
    """
    if not isinstance(rule, UnmaskRule):
        raise ArgumentError(f"rule must be an UnmaskRule, got {type(rule).__name__}")
    masked = as_array("masked", masked, np.bool_, (..., "n"))
    shape, leading, n = masked.shape, masked.shape[:-1], masked.shape[-1]
    given = _given(rule, log_probs, scores, shape)
    fields = _fields(statistics, rule, given is not None, shape)
    bias = None if bias is None else as_array("bias", bias, np.float32, shape)
    also = None if also is None else as_array("also", also, np.bool_, shape)
    chosen, ranks, confidence = np.empty(shape, np.bool_), np.empty(shape, np.int32), np.empty(shape, np.float32)
    count, workspace = np.empty(leading, np.int32), np.empty(masked.size, np.uint64)
    lib.fd_unmask_select(
        count.size, n, const(masked), *fields, const(given), const(bias), const(also), const(_quota(quota, leading)),
        const(_bounds(rule.factor, n)), _native(rule), pointer(chosen), pointer(count), pointer(ranks), pointer(confidence), pointer(workspace),
        check_threads(threads),
    )  # fmt: skip
    return Unmasked(chosen, count[()], ranks, confidence)


def _given(
    rule: UnmaskRule, log_probs: np.ndarray | None, scores: np.ndarray | None, shape: tuple[int, ...]
) -> np.ndarray | None:
    """What stands for the score of statistics, if anything does."""
    given = None
    for name, array, score in (("log_probs", log_probs, "confidence"), ("scores", scores, "given")):
        if array is not None and rule.score != score:
            raise ArgumentError(f"{name} must be None with the score {rule.score}, got {type(array).__name__}")
        if array is not None:
            given = as_array(name, array, np.float32, shape)
    if rule.score == "given" and scores is None:
        raise ArgumentError(f"scores must be float32 {shape} with the score given, got None")
    return given


def _fields(statistics: RowStatistics | None, rule: UnmaskRule, given: bool, shape: tuple[int, ...]) -> list[Any]:
    """Pointers to top, second, log_sum_exp, entropy and log_prob; NULL where nothing reads them."""
    read = () if given else _READ[rule.score]
    if rule.budget is not None or rule.explore:
        read = (*read, "entropy")
    if read and not isinstance(statistics, RowStatistics):
        raise ArgumentError(
            f"statistics must be RowStatistics: the rule needs {read[0]}, got {type(statistics).__name__}"
        )
    pointers = []
    for name in ("top", "second", "log_sum_exp", "entropy", "log_prob"):
        field = None
        if name in read:
            field = getattr(statistics, name)
            check_array(f"statistics.{name}", field, np.float32, shape)
        pointers.append(const(field))
    return pointers


def _quota(quota: np.ndarray | int | None, leading: tuple[int, ...]) -> np.ndarray | None:
    """One for each row, if there is any."""
    if quota is None:
        return None
    if not isinstance(quota, (np.ndarray, list, tuple)):
        return np.full(leading, check_integer("quota", quota, 0, _MOST), np.int32)
    quota = as_array("quota", quota, np.int32, leading)
    if quota.size and quota.min() < 0:
        raise ArgumentError(f"quota must be 0 or more, got {quota.min()}")
    return quota


def _least_score(rule: UnmaskRule) -> float:
    """The threshold as a score; without one, -inf."""
    if rule.threshold is None:
        return -np.inf
    if rule.score == "confidence":
        return float(np.log(rule.threshold))
    return -rule.threshold if rule.score == "entropy" else rule.threshold


@lru_cache(maxsize=64)
def _native(rule: UnmaskRule) -> Any:
    """The rule for C."""
    with np.errstate(divide="ignore", over="ignore"):  # log 0; beyond the float32 numbers
        threshold = float(np.float32(_least_score(rule)))
    budget = -1 if rule.budget is None else rule.budget
    most = _MOST if rule.most is None else rule.most
    fields = getattr(lib, _SCORES[rule.score]), threshold, budget, rule.least, most, rule.explore
    return ffi.new("struct fd_unmask_rule *", fields)


@lru_cache(maxsize=16)
def _bounds(factor: float | None, n: int) -> np.ndarray | None:
    """float32 (n,), what the log confidence of each rank has to exceed: log(1 - factor / (k + 1)), k from 1; NaN: nothing."""
    if factor is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log1p(-factor / np.arange(2, n + 2)).astype(np.float32)
