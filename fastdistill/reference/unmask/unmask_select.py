"""What `kernels.unmask_select` means."""

from __future__ import annotations

import numpy as np


def unmask_select(statistics, masked, rule, *, quota=None, log_probs=None, scores=None, bias=None, also=None):
    """chosen (..., n), count (...), ranks (..., n), confidence (..., n) of positions masked (..., n)."""
    *leading, n = masked.shape
    score = _score(statistics, rule, log_probs, scores, bias)
    eligible = masked & ~np.isnan(score)
    chosen = np.zeros(masked.shape, bool) if also is None else eligible & also
    ranks = np.full(masked.shape, -1, np.int32)
    quota = np.broadcast_to(n if quota is None else quota, leading)
    for row in np.ndindex(*leading):
        positions = np.flatnonzero(eligible[row])
        ranked = positions[np.argsort(-score[row][positions], kind="stable")]
        ranks[row][ranked] = np.arange(len(ranked))
        entropy = None if statistics is None else statistics.entropy[row]
        chosen[row][_selected(rule, ranked, score[row], entropy, quota[row])] = True
    return chosen, chosen.sum(axis=-1, dtype=np.int32), ranks, np.where(eligible, score, np.float32(np.nan))


def _score(statistics, rule, log_probs, scores, bias):
    """float32 (..., n), the best the highest."""
    with np.errstate(invalid="ignore"):  # -inf - -inf: NaN, not eligible
        if rule.score == "given":
            score = scores
        elif rule.score == "entropy":
            score = 0 - statistics.entropy
        elif rule.score == "margin":
            z = np.stack([statistics.top, statistics.second]) - statistics.log_sum_exp
            best, second = np.exp(z.astype(np.float64))
            score = (best - second).astype(np.float32)
        else:
            score = statistics.log_prob if log_probs is None else log_probs
        return score if bias is None else score + bias


def _selected(rule, ranked, score, entropy, quota):
    """The positions chosen among those ranked, best first; score and entropy (n,)."""
    limit = min(len(ranked), max(quota, 0), len(ranked) if rule.most is None else rule.most)
    taken = min(_passing(rule, score[ranked], None if entropy is None else entropy[ranked]), limit)
    if taken < min(rule.explore, limit):
        rest = np.sort(ranked[taken:])
        rest = rest[entropy[rest] > -np.inf]
        if len(rest):
            return [*ranked[:taken], rest[np.argmax(entropy[rest])]]
    return ranked[: max(taken, min(rule.least, limit))]


def _passing(rule, score, entropy):
    """How many pass, before the first that does not; score and entropy (eligible,), best first."""
    passes = np.ones(len(score), bool)
    if rule.threshold is not None:
        passes &= score >= _least_score(rule)
    if (
        rule.factor is not None
    ):  # (k + 1) (1 - p) < factor, with p = e^score of rank k from 1: beyond any p where it is NaN
        with np.errstate(invalid="ignore", divide="ignore"):
            bound = np.log1p(-rule.factor / np.arange(2, len(score) + 2)).astype(np.float32)
        passes &= ~(score <= bound)
    if rule.budget is not None:
        with np.errstate(invalid="ignore"):
            entropy = entropy.astype(np.float64)
            passes &= np.cumsum(entropy) - np.maximum.accumulate(entropy) <= rule.budget
    return len(passes) if passes.all() else int(np.argmin(passes))


def _least_score(rule):
    """The threshold as a score: of a confidence its logarithm, of an entropy its negative."""
    with np.errstate(divide="ignore", over="ignore"):
        if rule.score == "confidence":
            return np.float32(np.log(rule.threshold))
        return np.float32(-rule.threshold if rule.score == "entropy" else rule.threshold)
