"""Vocabularies that differ: rows of unequal widths cut to what both have, and token maps from one to the other.

Columns go before the softmax, so what is left is renormalised; how much probability was lost is returned beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_integer
from fastdistill.distill.log_softmax import blocks
from fastdistill.errors import ArgumentError

NO_TOKEN = -1  # in a token map: the other vocabulary has no such token


class CommonVocabulary(NamedTuple):
    """Logits over the tokens that both have, and the probability that each row had elsewhere.

    Attributes
    ----------
    student, teacher : np.ndarray float32 or float64 (n, m)
        of one width, each in its own dtype; the array that was given, where nothing was cut
    student_lost, teacher_lost : np.ndarray float64 (n,)
        the softmax's mass (temperature 1) on the columns that were cut; NaN where the row holds a NaN or +inf
    """

    student: np.ndarray
    teacher: np.ndarray
    student_lost: np.ndarray
    teacher_lost: np.ndarray


class MappedTeacher(NamedTuple):
    """The teacher's logits in the student's columns.

    Attributes
    ----------
    teacher : np.ndarray float32 or float64 (n, student_vocab)
        -inf in the columns of tokens that the teacher lacks
    lost : np.ndarray float64 (n,)
        the softmax's mass (temperature 1) on tokens that the student lacks; NaN where the row holds a NaN or +inf
    """

    teacher: np.ndarray
    lost: np.ndarray


def check_same_vocabulary(student: np.ndarray, teacher: np.ndarray) -> None:
    """Refuse rows of different widths, naming what makes them one.

    Parameters
    ----------
    student, teacher : np.ndarray (n, V) and (n, V)

    Raises
    ------
    ArgumentError
    """
    if student.shape[-1] != teacher.shape[-1]:
        raise ArgumentError(
            f"student and teacher must have one vocabulary, got {student.shape[-1]} and {teacher.shape[-1]} columns: pass both "
            "through common_vocabulary if one is padded, mapped_teacher if a token map leads over, else use alm_loss or uld_loss"
        )


def common_vocabulary(student: np.ndarray, teacher: np.ndarray) -> CommonVocabulary:
    """Cut both to the width of the narrower one: for one tokenizer under embeddings that are padded to different widths.

    A token must have the same id on both sides. The cut is before the softmax: what is left of a row is renormalised.

    Parameters
    ----------
    student, teacher : float32 or float64 (n, student_vocab) and (n, teacher_vocab)
        logits; -inf is a ban

    Returns
    -------
    CommonVocabulary

    Raises
    ------
    ArgumentError

    Notes
    -----
    The gradient by the student's whole rows is `pad_columns` of that by the cut ones: what was cut has none.
    """
    rows, wide = check_array("student", student, REAL, ("rows", "student_vocab"))
    _, other = check_array("teacher", teacher, REAL, (rows, "teacher_vocab"))
    width = min(wide, other)
    if width == 0:
        raise ArgumentError(f"student and teacher must have columns, got {wide} and {other}")
    kept = np.arange(width)
    return CommonVocabulary(
        np.ascontiguousarray(student[:, :width]),
        np.ascontiguousarray(teacher[:, :width]),
        _lost(student, kept),
        _lost(teacher, kept),
    )


def pad_columns(gradient: np.ndarray, vocab: int) -> np.ndarray:
    """The gradient by rows of which `common_vocabulary` kept the first columns: zeros in the others.

    Parameters
    ----------
    gradient : float32 or float64 (n, m)
    vocab : int
        the width of the rows, at least m

    Returns
    -------
    np.ndarray (n, vocab)
        in the gradient's dtype

    Raises
    ------
    ArgumentError
    """
    rows, width = check_array("gradient", gradient, REAL, ("rows", "vocab"))
    vocab = check_integer("vocab", vocab, width, 2**31 - 1)
    padded = np.zeros((rows, vocab), gradient.dtype)
    padded[:, :width] = gradient
    return padded


def mapped_teacher(teacher: np.ndarray, token_map: Any) -> MappedTeacher:
    """The teacher's logits for the student's tokens, in the student's order.

    For a student whose vocabulary is a part of the teacher's (a draft model's, say), or its tokens in another order.

    Parameters
    ----------
    teacher : float32 or float64 (n, teacher_vocab)
        logits; -inf is a ban
    token_map : int (student_vocab,)
        the teacher's token of each of the student's, or -1 where the teacher has none; no token twice. Of a map that
        holds differences, as EAGLE-3's d2t, it is `differences + np.arange(student_vocab)`

    Returns
    -------
    MappedTeacher

    Raises
    ------
    ArgumentError
    """
    rows, vocab = check_array("teacher", teacher, REAL, ("rows", "teacher_vocab"))
    tokens = _as_token_map(token_map, vocab)
    found = tokens != NO_TOKEN
    if not found.any():
        raise ArgumentError("token_map must lead to one of the teacher's tokens at least, got none")
    mapped = np.full((rows, len(tokens)), -np.inf, teacher.dtype)
    mapped[:, found] = teacher[:, tokens[found]]
    return MappedTeacher(mapped, _lost(teacher, np.sort(tokens[found])))


def scatter_columns(gradient: np.ndarray, token_map: Any, vocab: int) -> np.ndarray:
    """The gradient by rows of which columns were taken by a token map: each column back where it came from, zeros elsewhere.

    It is the adjoint of the gather that `mapped_teacher` does.

    Parameters
    ----------
    gradient : float32 or float64 (n, m)
    token_map : int (m,)
        as `mapped_teacher` takes it; a column of -1 goes nowhere
    vocab : int
        the width of the rows that the columns came from

    Returns
    -------
    np.ndarray (n, vocab)
        in the gradient's dtype

    Raises
    ------
    ArgumentError
    """
    rows, width = check_array("gradient", gradient, REAL, ("rows", "columns"))
    vocab = check_integer("vocab", vocab, 1, 2**31 - 1)
    tokens = _as_token_map(token_map, vocab)
    if len(tokens) != width:
        raise ArgumentError(f"token_map must have an entry for each of gradient's {width} columns, got {len(tokens)}")
    found = tokens != NO_TOKEN
    scattered = np.zeros((rows, vocab), gradient.dtype)
    scattered[:, tokens[found]] = gradient[:, found]
    return scattered


def inverse_token_map(token_map: Any, vocab: int) -> np.ndarray:
    """The student's token of each of the teacher's, or -1: so labels in the teacher's tokens become the student's.

    Parameters
    ----------
    token_map : int (student_vocab,)
        as `mapped_teacher` takes it
    vocab : int
        the teacher's tokens

    Returns
    -------
    np.ndarray int32 (vocab,)

    Raises
    ------
    ArgumentError
    """
    vocab = check_integer("vocab", vocab, 1, 2**31 - 1)
    tokens = _as_token_map(token_map, vocab)
    found = np.flatnonzero(tokens != NO_TOKEN).astype(np.int32)
    inverse = np.full(vocab, NO_TOKEN, np.int32)
    inverse[tokens[found]] = found
    return inverse


def _as_token_map(token_map: Any, vocab: int) -> np.ndarray:
    """int32 (m,): tokens below vocab, none twice, or NO_TOKEN."""
    tokens = as_array("token_map", token_map, np.int32, ("student_vocab",))
    wrong = (tokens != NO_TOKEN) & ((tokens < 0) | (tokens >= vocab))
    if wrong.any():
        at = int(wrong.argmax())
        raise ArgumentError(
            f"token_map must hold tokens from 0 to {vocab - 1}, or {NO_TOKEN} for none, got {tokens[at]} at {at}"
        )
    order = np.argsort(tokens, kind="stable")
    twice = (np.diff(tokens[order]) == 0) & (tokens[order][1:] != NO_TOKEN)
    if twice.any():
        first, second = (int(at) for at in order[int(twice.argmax()) :][:2])
        raise ArgumentError(
            f"token_map must lead to no token twice, got {tokens[first]} at {first} and at {second}: its probability would count twice"
        )
    return tokens


def _lost(logits: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """float64 (n,): the softmax's mass outside of these columns, ascending; NaN where it is not finite."""
    lost = np.zeros(len(logits))
    rest = np.ones(logits.shape[1], bool)
    rest[kept] = False
    if not rest.any():
        return lost
    with np.errstate(invalid="ignore"):
        for rows in blocks(np.arange(len(logits)), logits.shape[1]):
            top = logits[rows].max(axis=1, keepdims=True).astype(np.float64)
            mass = np.exp(logits[rows] - top)
            lost[rows] = mass[:, rest].sum(axis=1) / mass.sum(axis=1)
    return lost
