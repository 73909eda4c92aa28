"""A teacher's law as its k likeliest tokens and the mass of all others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_choice, check_instance, check_integer
from fastdistill.distill.log_softmax import blocks, log_softmax, refuse_rows_without_law
from fastdistill.distill.ranking.top_ids import top_ids
from fastdistill.errors import ArgumentError
from fastdistill.kernels import softmax, top_k

_TAILS = "uniform", "drop"
_APART = 1e-2  # kept mass and tail may be so far from 1: log-probabilities rounded to bfloat16 are


class TopK(NamedTuple):
    """The likeliest tokens of each row.

    Attributes
    ----------
    ids : np.ndarray int32 (n, k)
        ascending, not by probability
    log_probs : np.ndarray float32 (n, k)
        of the whole law, temperature 1: their probabilities and the tail sum up to 1; -inf for a ban
    tail : np.ndarray float32 (n,)
        the probability of all other tokens
    """

    ids: np.ndarray
    log_probs: np.ndarray
    tail: np.ndarray


def teacher_top_k(logits: np.ndarray, k: int) -> TopK:
    """The k likeliest tokens of each row; of equal ones the lowest.

    Parameters
    ----------
    logits : float32 or float64 (n, vocab)
        -inf is a ban
    k : int
        1 to vocab

    Returns
    -------
    TopK

    Raises
    ------
    ArgumentError
    NotFiniteError
        naming the row
    """
    rows, vocab = check_array("logits", logits, REAL, ("rows", "vocab"))
    k = check_integer("k", k, 1, max(1, vocab))
    if vocab == 0:
        raise ArgumentError("logits must have columns, got none")
    ids, log_probs = np.empty((rows, k), np.int32), np.empty((rows, k), np.float32)
    tail = np.empty(rows, np.float32)
    for block in blocks(np.arange(rows), vocab):
        kept, laws, tail[block] = _of_block(logits[block], block, k)
        order = np.argsort(kept, axis=1)
        ids[block] = np.take_along_axis(kept, order, axis=1)
        log_probs[block] = np.take_along_axis(laws, order, axis=1)
    return TopK(ids, log_probs, tail)


def _of_block(logits: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k best tokens of each row, their log-probabilities and the mass of the others, by kernels where these take the dtype.

    That mass is summed up from what is in it, not as 1 less the others: of a sure teacher it would be rounding alone.
    """
    if logits.dtype == np.float32:
        refuse_rows_without_law("logits", logits, rows)
        ids, values = top_k(logits, k, threads=None)
        law = softmax(logits, threads=None)
        np.put_along_axis(law, ids, 0, axis=1)
        tail = law.sum(axis=1, dtype=np.float64)
        below = values.astype(np.float64) - values[:, :1]
        return ids, below + (np.log1p(-tail) - np.log(np.exp(below).sum(axis=1)))[:, None], tail
    laws = log_softmax("logits", logits, rows)
    ids = top_ids(laws, k)
    kept = np.take_along_axis(laws, ids, axis=1)
    np.put_along_axis(laws, ids, -np.inf, axis=1)
    return ids, kept, np.exp(laws).sum(axis=1)


def dense_log_probs(top: TopK, vocab: int, *, tail: str = "uniform") -> np.ndarray:
    """Log-probabilities of all tokens, for objectives that want whole rows.

    Parameters
    ----------
    top : TopK
        of arrays, or lists of numbers
    vocab : int
        tokens of the whole vocabulary
    tail : str, default "uniform"
        "uniform": each other token has the same part of the tail's mass; "drop": none, and the others are renormalised

    Returns
    -------
    np.ndarray float32 (n, vocab)

    Raises
    ------
    ArgumentError
    """
    check_instance("top", top, TopK)
    check_choice("tail", tail, _TAILS)
    vocab = check_integer("vocab", vocab, 1, 2**31 - 1)
    ids, log_probs, mass = as_top_k(*top, vocab=vocab)
    rest = vocab - ids.shape[1]
    with np.errstate(divide="ignore"):
        if tail == "drop":
            filling, log_probs = np.full(len(ids), -np.inf), log_probs - np.log1p(-mass)[:, None]
        else:
            filling = np.log(mass / max(1, rest))
    dense = np.repeat(filling.astype(np.float32)[:, None], vocab, axis=1)
    np.put_along_axis(dense, ids, log_probs.astype(np.float32), axis=1)
    return dense


def as_top_k(ids: Any, log_probs: Any, tail: Any, *, vocab: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids int32 ascending, log_probs float64 in their order, tail float64, of rows that are laws; tail None: what is left of 1."""
    tokens = as_array("ids", ids, np.int32, ("rows", "k"))
    rows, k = tokens.shape
    laws = as_array("log_probs", log_probs, np.float64, (rows, k))
    if not 1 <= k <= vocab:
        raise ArgumentError(f"ids must have 1 to {vocab} columns, got {k}")
    order = np.argsort(tokens, axis=1, kind="stable")
    tokens, laws = np.take_along_axis(tokens, order, axis=1), np.take_along_axis(laws, order, axis=1)
    wrong = (tokens[:, 0] < 0) | (tokens[:, -1] >= vocab) | (np.diff(tokens, axis=1) == 0).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(
            f"ids must be tokens from 0 to {vocab - 1}, in a row none twice; those of row {row} are not"
        )
    with np.errstate(over="ignore"):
        kept = np.exp(laws).sum(axis=1)
    left = np.maximum(1 - kept, 0) if k < vocab else np.zeros(rows)
    mass = left if tail is None else as_array("tail", tail, np.float64, (rows,))
    sums = kept + np.where(mass >= 0, mass, np.nan)
    wrong = ~(np.abs(sums - 1) <= _APART) | (kept == 0) | ~(laws <= _APART).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(
            f"log_probs must be log-probabilities at temperature 1, with the tail of mass 1; row {row} has {kept[row]:.6g}, "
            f"and its tail {mass[row]:.6g}"
        )
    return tokens, laws, np.minimum(mass, 1)
