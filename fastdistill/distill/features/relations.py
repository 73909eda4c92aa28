"""Who looks at whom: rows of attention, or of any relation of tokens, of a student beside a teacher's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_flag
from fastdistill.distill.loss import Loss, Reduction
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.messages import short


class RelationGradient(NamedTuple):
    """The gradient of a loss of relations.

    Attributes
    ----------
    queries : np.ndarray (batch, heads, n, width)
        by the student's queries, in their dtype
    keys : np.ndarray (batch, heads, m, width)
        by the student's keys, in their dtype
    """

    queries: np.ndarray
    keys: np.ndarray


def attention_loss(
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    kept: Any = None,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """KL(teacher, student) of rows of attention, each a law over keys; a row's value is the mean over heads.

    Where the counts of heads differ, the laws of each side are averaged over its heads first.

    Parameters
    ----------
    student : float32 or float64 (batch, heads, n, m)
        attention logits, before the softmax, scaled; -inf is a mask
    teacher : float32 or float64 (batch, teacher_heads, n, m)
        attention probabilities, at least 0, as of `token_relations`; they are divided by their sum over kept keys
    kept : bool (batch, m) or (batch, n, m), optional
        the keys that count, for all queries or for each; None: all. Over these both sides are laws
    weights : float (batch, n), optional
        of queries, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of all rows that count in the whole batch that these are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient (batch, heads, n, m), in the student's dtype; rows (batch n,); info: total_weight, the weight of the rows that
        count: in which each of the teacher's heads looks at a kept key

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row; where the student masks a key that the teacher looks at, too
    """
    batch, heads, queries, keys = check_array("student", student, REAL, ("batch", "heads", "n", "m"))
    _, teacher_heads, _, _ = check_array("teacher", teacher, REAL, (batch, "teacher_heads", queries, keys))
    if 0 in (heads, teacher_heads, keys):
        raise ArgumentError(f"student and teacher must have heads and keys, got {student.shape} and {teacher.shape}")
    wanted = check_flag("gradient", gradient)
    open_ = _kept(kept, batch, queries, keys)
    given = _weights(weights, batch, queries)
    read = (given > 0)[:, None, :, None] & open_
    p = np.where(read, teacher, 0).astype(np.float64)
    _refuse("teacher", ~(np.isfinite(p) & (p >= 0)), "a NaN, an infinity or a number below 0")
    mass = p.sum(axis=3, keepdims=True)
    counts = (mass[..., 0] > 0).all(axis=1)  # (batch, n)
    reduce = Reduction(batch * queries, np.where(counts, given, 0).reshape(-1), reduction, total_weight)
    read &= (counts & (given > 0))[:, None, :, None]
    p = np.divide(p, mass, out=np.zeros_like(p), where=read)
    logits = np.where(read, student, -np.inf).astype(np.float64)
    _refuse("student", ~(logits < np.inf), "a NaN or +inf")
    log_law = _log_law(logits)
    _refuse("student", (log_law == -np.inf).all(axis=3) & read.any(axis=3), "nothing but -inf at kept keys")
    law, log_q, averaged = np.exp(log_law), log_law, heads != teacher_heads
    if averaged:
        p = p.mean(axis=1, keepdims=True)
        log_q = np.logaddexp.reduce(log_law, axis=1, keepdims=True) - np.log(heads)
    _refuse("student", (p > 0) & (log_q == -np.inf), "no mass where the teacher has some")
    log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
    terms = np.where(p > 0, p * (log_p - np.where(p > 0, log_q, 0)), 0)
    values = terms.sum(axis=3).mean(axis=1).reshape(-1)
    info = {"total_weight": float(reduce.weights.sum())}
    if not wanted:
        return reduce.loss(values, **info)
    if averaged:
        # By the averaged law q it is -p / q, by each head's law 1 / heads of that, and then through its softmax.
        pull = np.where(p > 0, p * np.exp(log_law - np.where(p > 0, log_q, 0)), 0)
        by_logits = law * pull.sum(axis=3, keepdims=True) - pull
    else:
        by_logits = law - p
    by_logits *= (reduce.scale / heads).reshape(batch, 1, queries, 1)
    return reduce.loss(values, by_logits.astype(student.dtype, copy=False), **info)


def token_relations(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """softmax(queries keys^T / sqrt(width)), row by row.

    Parameters
    ----------
    queries : float32 or float64 (batch, heads, n, width)
    keys : float32 or float64 (batch, heads, m, width)

    Returns
    -------
    np.ndarray float64 (batch, heads, n, m)

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    batch, _, rows, columns = _relation_shape(queries, keys)
    return np.exp(
        _log_law(_relation_logits(queries, keys, np.ones((batch, rows), bool), np.ones((batch, columns), bool)))
    )


def relation_loss(
    queries: np.ndarray,
    keys: np.ndarray,
    teacher: np.ndarray,
    *,
    kept: Any = None,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """`attention_loss` of queries keys^T / sqrt(width): how a student's tokens relate, against how a teacher's do.

    As in Hybrid Distillation (Shi et al., arXiv 2306.15876): of queries and keys, or of values and values.

    Parameters
    ----------
    queries : float32 or float64 (batch, heads, n, width)
        of the student
    keys : float32 or float64 (batch, heads, m, width)
        of the student; one that is kept for no query is not read
    teacher : float32 or float64 (batch, teacher_heads, n, m)
        probabilities, as `token_relations` of the teacher's queries and keys
    kept : bool (batch, m) or (batch, n, m), optional
        the keys that count, for all queries or for each; None: all. Over these both sides are laws
    weights : float (batch, n), optional
        of queries, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of all rows that count in the whole batch that these are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient: a RelationGradient; rows and info as of `attention_loss`

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row

    Notes
    -----
    Where queries and keys are one array, its gradient is the sum of both.
    """
    batch, _, rows, columns = _relation_shape(queries, keys)
    read_queries = _weights(weights, batch, rows) > 0
    read_keys = np.any(_kept(kept, batch, rows, columns)[:, 0] & read_queries[:, :, None], axis=1)
    logits = _relation_logits(queries, keys, read_queries, read_keys)
    found = attention_loss(
        logits, teacher, kept=kept, weights=weights, reduction=reduction, total_weight=total_weight, gradient=gradient
    )
    if found.gradient is None:
        return found
    by_logits = found.gradient / np.sqrt(queries.shape[3])
    by_queries = by_logits @ _read("keys", keys, read_keys)
    by_keys = by_logits.swapaxes(2, 3) @ _read("queries", queries, read_queries)
    return found._replace(
        gradient=RelationGradient(by_queries.astype(queries.dtype, copy=False), by_keys.astype(keys.dtype, copy=False))
    )


def _relation_shape(queries: np.ndarray, keys: np.ndarray) -> tuple[int, int, int, int]:
    """(batch, heads, n, m)."""
    batch, heads, rows, width = check_array("queries", queries, REAL, ("batch", "heads", "n", "width"))
    columns = check_array("keys", keys, REAL, (batch, heads, "m", width))[2]
    if 0 in (heads, columns, width):
        raise ArgumentError(f"queries and keys must have heads, keys and width, got {queries.shape} and {keys.shape}")
    return batch, heads, rows, columns


def _relation_logits(
    queries: np.ndarray, keys: np.ndarray, read_queries: np.ndarray, read_keys: np.ndarray
) -> np.ndarray:
    """float64 (batch, heads, n, m)."""
    q, k = _read("queries", queries, read_queries), _read("keys", keys, read_keys)
    return q @ k.swapaxes(2, 3) / np.sqrt(queries.shape[3])


def _read(name: str, tokens: np.ndarray, read: np.ndarray) -> np.ndarray:
    """float64 (batch, heads, n, width), zeros where a token (batch, n) is not read; the others are finite."""
    found = np.where(read[:, None, :, None], tokens, 0).astype(np.float64)
    _refuse(name, ~np.isfinite(found), "a NaN or an infinity")
    return found


def _log_law(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax over the last axis; of -inf alone, -inf."""
    best = logits.max(axis=-1, keepdims=True)
    lead = logits - np.where(best > -np.inf, best, 0)
    return lead - np.log(np.maximum(np.exp(lead).sum(axis=-1, keepdims=True), 1e-300))  # it is at least 1, or 0


def _kept(given: Any, batch: int, queries: int, keys: int) -> np.ndarray:
    """bool, to be spread over (batch, heads, n, m)."""
    if given is None:
        return np.ones((batch, 1, queries, keys), bool)
    found = as_array("kept", given, np.bool_, (...,))
    if found.shape not in ((batch, keys), (batch, queries, keys)):
        raise ArgumentError(
            f"kept must have shape ({batch}, {keys}) or ({batch}, {queries}, {keys}), got {short(found.shape)}"
        )
    found = found[:, None, None, :] if found.ndim == 2 else found[:, None]
    return np.broadcast_to(found, (batch, 1, queries, keys))


def _weights(given: Any, batch: int, queries: int) -> np.ndarray:
    """float64 (batch, n)."""
    if given is not None:
        given = as_array("weights", given, np.float64, (batch, queries)).reshape(-1)
    return Reduction(batch * queries, given).weights.reshape(batch, queries)


def _refuse(name: str, wrong: np.ndarray, what: str) -> None:
    """Raise for the first place (batch, head, query, ...) that is wrong."""
    if wrong.any():
        batch, head, query = (int(index) for index in np.argwhere(wrong)[0][:3])
        raise NotFiniteError(f"{name}: row {query} of head {head} of batch {batch} holds {what}")
