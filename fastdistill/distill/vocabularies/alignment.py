"""Which tokens of two tokenizers stand for the same bytes of one text."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array
from fastdistill.errors import ArgumentError


class Alignment(NamedTuple):
    """Chunks of tokens that stand for the same bytes on both sides.

    Attributes
    ----------
    chunks : np.ndarray int32 (C, 4)
        i0, i1, j0, j1: teacher's tokens i0..i1-1 and student's j0..j1-1, in the order of the text
    teacher_dropped, student_dropped : int
        so many tokens are in no chunk
    """

    chunks: np.ndarray
    teacher_dropped: int
    student_dropped: int


def align_bytes(teacher_offsets: Any, student_offsets: Any) -> Alignment:
    """Align two tokenizations of one text: a chunk closes wherever tokens of both sides end at the same byte.

    So chunks are as small as they can be. A token that splits a character is one like any other, as bytes are
    compared. What a chunk needs is that both sides cover all of its bytes, and the same: where a tokenizer drops
    bytes (blanks, say), the tokens around are dropped and counted.

    A token of no bytes (one that marks the begin or end of a text, say) is a unit of its own: it pairs with the other
    side's at the same place, in order, if both have as many there; else it is dropped. It lies in no chunk of text.

    Parameters
    ----------
    teacher_offsets, student_offsets : int (Lt, 2) and (Ls, 2)
        begin and end of each token in bytes of the text, as `Tokenizer.byte_spans` gives them: in order, not overlapping

    Returns
    -------
    Alignment

    Raises
    ------
    ArgumentError

    References
    ----------
    Minixhofer et al. 2025, "Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching", section 3
    """
    teacher, student = _as_spans("teacher_offsets", teacher_offsets), _as_spans("student_offsets", student_offsets)
    chunks = np.concatenate([_text_chunks(teacher, student), _units(teacher, student)])
    chunks = chunks[np.lexsort((chunks[:, 2], chunks[:, 0]))]
    covered = (chunks[:, 1::2] - chunks[:, ::2]).sum(axis=0)
    return Alignment(chunks.astype(np.int32), len(teacher) - int(covered[0]), len(student) - int(covered[1]))


def chunk_weights(chunks: Any, teacher_mask: Any = None, student_mask: Any = None) -> np.ndarray:
    """The weight of each chunk under loss masks: 1 where every token of it counts on both sides, else 0.

    Parameters
    ----------
    chunks : int (C, 4)
        as `align_bytes` gives them
    teacher_mask, student_mask : bool (Lt,) and (Ls,), optional
        True where a token counts; None: all do

    Returns
    -------
    np.ndarray float64 (C,)

    Raises
    ------
    ArgumentError
    """
    checked = as_chunks(chunks)
    weights = np.ones(len(checked))
    for name, mask, spans in (
        ("teacher_mask", teacher_mask, checked[:, :2]),
        ("student_mask", student_mask, checked[:, 2:]),
    ):
        if mask is not None:
            counts = as_array(name, mask, np.bool_, ("tokens",))
            check_within(name, len(counts), spans)
            weights[_sums(counts, spans) < spans[:, 1] - spans[:, 0]] = 0
    return weights


def merge_chunks(chunks: Any, closes: Any) -> np.ndarray:
    """Chunks joined to larger ones, which close where they may: where a word ends, say.

    A token of one tokenizer often says more of what comes next than that of another which ends at the same byte. Closed only
    where the teacher expects a blank, chunks are compared where both know as much:
    `closes = teacher_space_log_probs[chunks[:, 1]] > np.log(0.1)`.

    Parameters
    ----------
    chunks : int (C, 4)
        as `align_bytes` gives them
    closes : bool (C,)
        whether a chunk may be the last of a merged one; it also is where the next one does not adjoin it on both sides,
        and at the end

    Returns
    -------
    np.ndarray int32 (M, 4)

    Raises
    ------
    ArgumentError
    """
    checked = as_chunks(chunks)
    last = as_array("closes", closes, np.bool_, (len(checked),)).copy()
    if not len(checked):
        return checked
    last[:-1] |= (checked[1:, ::2] != checked[:-1, 1::2]).any(axis=1)
    last[-1] = True
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    merged = checked[ends]  # a copy
    merged[:, ::2] = checked[begins, ::2]
    return merged


def as_chunks(chunks: Any) -> np.ndarray:
    """int32 (C, 4): on each side ascending and apart, none empty."""
    checked = as_array("chunks", chunks, np.int32, ("chunks", 4))
    for side, begin in (("teacher", 0), ("student", 2)):
        spans = checked[:, begin : begin + 2]
        ends = np.concatenate([[0], spans[:-1, 1]]) if len(spans) else spans[:, 1]
        wrong = (spans[:, 0] < ends) | (spans[:, 1] <= spans[:, 0])
        if wrong.any():
            at = int(wrong.argmax())
            raise ArgumentError(
                f"chunks must be ascending and apart, and hold a token of each side; got {checked[at].tolist()} at {at}, "
                f"of which the {side}'s part is not"
            )
    return checked


def check_within(name: str, length: int, spans: np.ndarray) -> None:
    """Refuse an array of so many tokens that chunks reach past."""
    if len(spans) and spans[-1, 1] > length:
        raise ArgumentError(f"{name} must have an entry for each token: chunks reach to {spans[-1, 1]}, got {length}")


def chunk_sums(values: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """float64 (C,): the sum of values (L,) over each span, nothing else of them read."""
    inside = token_chunks(spans, len(values)) >= 0
    return _sums(np.where(inside, values, 0), spans)


def token_chunks(spans: np.ndarray, length: int) -> np.ndarray:
    """int (length,): the chunk of each token, or -1."""
    found = np.full(length, -1)
    widths = spans[:, 1] - spans[:, 0]
    starts = (
        np.repeat(spans[:, 0] - np.concatenate([[0], np.cumsum(widths)[:-1]]), widths)
        if len(spans)
        else np.empty(0, int)
    )
    found[starts + np.arange(len(starts))] = np.repeat(np.arange(len(spans)), widths)
    return found


def _sums(values: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Sums over spans, each by itself: no difference of running sums, in which small ones would drown."""
    if not len(spans):
        return np.zeros(0)
    edges = np.append(spans.reshape(-1), len(values))
    padded = np.append(np.asarray(values, np.float64), 0.0)  # reduceat takes no edge at the end
    return np.add.reduceat(padded, edges)[: 2 * len(spans) : 2]


def _as_spans(name: str, offsets: Any) -> np.ndarray:
    """int64 (n, 2), in order and not overlapping."""
    spans = as_array(name, offsets, np.int32, ("tokens", 2)).astype(np.int64)
    wrong = (spans[:, 1] < spans[:, 0]) | (spans[:, 0] < np.concatenate([[0], spans[:-1, 1]])[: len(spans)])
    if wrong.any():
        at = int(wrong.argmax())
        raise ArgumentError(
            f"{name} must be in order and not overlap, in bytes (as Tokenizer.byte_spans gives them), got {spans[at].tolist()} at {at}"
        )
    return spans


def _text_chunks(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """int64 (C, 4): the smallest chunks of text."""
    sides = []
    for spans in (teacher, student):
        tokens = np.flatnonzero(spans[:, 1] > spans[:, 0])
        begins, ends = spans[tokens].T
        sides.append((tokens, begins, ends, np.concatenate([[0], np.cumsum(ends - begins)])))
    closes = np.intersect1d(sides[0][2], sides[1][2], assume_unique=True)
    parts, kept, opens = [], np.ones(len(closes), bool), []
    for tokens, begins, ends, covered in sides:
        last = np.searchsorted(ends, closes)  # the token that ends there
        first = np.concatenate([[0], last[:-1] + 1])[: len(last)]
        parts += [tokens[first], tokens[last] + 1]
        opens.append(begins[first])
        # Of the bytes of the chunk none is left out, and no token of no bytes stands inside.
        kept &= covered[last + 1] - covered[first] == closes - begins[first]
        kept &= tokens[last] - tokens[first] == last - first
    kept &= opens[0] == opens[1]
    return np.stack(parts, axis=1)[kept]


def _units(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """int64 (C, 4): tokens of no bytes that pair."""
    sides = []
    for spans in (teacher, student):
        tokens = np.flatnonzero(spans[:, 1] == spans[:, 0])
        sides.append((tokens, *np.unique(spans[tokens, 0], return_counts=True)))
    (left, left_at, left_count), (right, right_at, right_count) = sides
    _, a, b = np.intersect1d(left_at, right_at, assume_unique=True, return_indices=True)
    same = left_count[a] == right_count[b]
    i = left[np.isin(np.repeat(np.arange(len(left_at)), left_count), a[same])]
    j = right[np.isin(np.repeat(np.arange(len(right_at)), right_count), b[same])]
    return np.stack([i, i + 1, j, j + 1], axis=1)
