"""Which sentences of a teacher's response the student would not have written itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer, check_number
from fastdistill.distill.groups import as_groups
from fastdistill.distill.loss import counted
from fastdistill.errors import ArgumentError


class SpanScores(NamedTuple):
    """The geometric mean of the token probabilities of each span.

    Attributes
    ----------
    probabilities : np.ndarray float64 (spans,)
        above 0, at most 1; 1 where a span has no token
    tokens : np.ndarray int32 (spans,)
        how many tokens begin in it
    """

    probabilities: np.ndarray
    tokens: np.ndarray


class TeacherSentences(NamedTuple):
    """What each sentence is, and how much of each response is the teacher's.

    Attributes
    ----------
    kinds : np.ndarray int8 (sentences,)
        1: the teacher's, 0: shared, -1: the student's
    shares : np.ndarray float64 (responses,)
        0..1, the share of the teacher's sentences, in the order of the responses' numbers; 0 where none counts
    """

    kinds: np.ndarray
    shares: np.ndarray


def span_geomean(log_probs: np.ndarray, starts: np.ndarray, spans: np.ndarray) -> SpanScores:
    """exp of the mean log-probability of the tokens of each span of a text.

    A token belongs to the span that its first byte lies in, so models with different tokenizers are compared on the
    same spans (Yan et al. 2026, DASD). Tokens outside of all spans do not count.

    Parameters
    ----------
    log_probs : float64 (n,)
        of the text's tokens, at temperature 1, at most 0
    starts : int64 (n,)
        the first byte of each token
    spans : int64 (spans, 2)
        first byte, and the one behind the last; ascending, without overlap

    Returns
    -------
    SpanScores

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the token
    """
    log_probs = as_array("log_probs", log_probs, np.float64, ("tokens",))
    starts = as_array("starts", starts, np.int64, log_probs.shape)
    spans = as_array("spans", spans, np.int64, ("spans", 2))
    log_probs = counted("log_probs", log_probs, np.ones(len(log_probs)))
    if (log_probs > 0).any():
        token = int(np.argmax(log_probs > 0))
        raise ArgumentError(f"log_probs must be at most 0, got {log_probs[token]} of token {token}")
    edges = spans.reshape(-1)
    if (edges[1:] < edges[:-1]).any():
        span = int(np.argmax(edges[1:] < edges[:-1]) + 1) // 2
        raise ArgumentError(f"spans must ascend without overlap; span {span} does not")
    count = len(spans)
    # Of spans that begin at one byte all but the last are empty: the last one has the token.
    at = np.searchsorted(spans[:, 0], starts, side="right") - 1
    inside = (at >= 0) & (starts < spans[:, 1][at]) if count else np.zeros(len(starts), bool)
    tokens = np.bincount(at[inside], minlength=count)
    sums = np.bincount(at[inside], log_probs[inside], minlength=count)
    return SpanScores(np.exp(sums / np.maximum(tokens, 1)), tokens.astype(np.int32))


def teacher_sentences(
    teacher: np.ndarray,
    student: np.ndarray,
    responses: np.ndarray | None = None,
    *,
    threshold: float = 0.2,
    tokens: np.ndarray | None = None,
    least_tokens: int = 1,
) -> TeacherSentences:
    """Sentences by who would write them, and the share of each response that only the teacher would.

    A sentence is the teacher's where its probability under the teacher is at least `threshold` above that under the
    student, and the student's the other way round. Of several responses to a prompt, those with the largest shares
    teach most (Yan et al. 2026, DASD): `top_fraction` of the shares, method "exact", keeps them.

    Parameters
    ----------
    teacher, student : float64 (sentences,)
        `SpanScores.probabilities` of the same sentences, 0..1
    responses : int32 (sentences,), optional
        which response a sentence belongs to, any numbers; None: all to one
    threshold : float, default 0.2
        above 0, at most 1
    tokens : int32 (sentences,), optional
        how many tokens a sentence has: shares are of tokens. None: of sentences
    least_tokens : int, default 1
        sentences of fewer tokens are in no share, and shared: their means are noisy

    Returns
    -------
    TeacherSentences

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the sentence
    """
    teacher = as_array("teacher", teacher, np.float64, ("sentences",))
    student = as_array("student", student, np.float64, teacher.shape)
    count = len(teacher)
    numbers, many = as_groups("responses", responses, count)
    threshold = check_number("threshold", threshold, 1e-300, 1)
    least = check_integer("least_tokens", least_tokens, 0, 2**31 - 1)
    lengths = np.ones(count) if tokens is None else as_array("tokens", tokens, np.int32, (count,)).astype(np.float64)
    if (lengths < 0).any():
        raise ArgumentError(f"tokens must be at least 0, got {lengths.min():.0f}")
    for name, values in (("teacher", teacher), ("student", student)):
        counted(name, values, np.ones(count))
        if ((values < 0) | (values > 1)).any():
            raise ArgumentError(f"{name} must hold probabilities, 0..1")
    counts = np.where(lengths >= least, lengths, 0.0) if tokens is not None else lengths
    gap = teacher - student
    kinds = ((gap >= threshold).astype(np.int8) - (gap <= -threshold).astype(np.int8)) * (counts > 0)
    totals = np.bincount(numbers, counts, minlength=many)
    ours = np.bincount(numbers, counts * (kinds == 1), minlength=many)
    return TeacherSentences(kinds.astype(np.int8), np.divide(ours, totals, out=np.zeros(many), where=totals > 0))
