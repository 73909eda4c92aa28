"""A divergence of the logits that a head makes of hidden states, without the logits."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastdistill.arguments import check_array, check_flag
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import aligned_bytes, const, ffi, lib, pointer
from fastdistill.kernels.distill.divergence_call import LOGITS, NUMBERS, as_tokens, as_weights, settings
from fastdistill.kernels.distill.kinds import resolve
from fastdistill.kernels.distill.row_divergence_topk import check_topk, log_tail_of
from fastdistill.kernels.threads import check_threads


class HeadDivergence(NamedTuple):
    """Divergences of rows and their gradients.

    Attributes
    ----------
    values : float64 (rows,)
        the divergence of each row; 0 where its weight is 0
    label_values : float64 (rows,)
        -log q of its label at temperature 1; 0 where it has none
    hidden : float32 (rows, width), or None
        the gradient by the hidden states, of sum weights (scale values + label_scale label_values)
    head : float32 (vocab, width), or None
        the gradient by the head
    """

    values: np.ndarray
    label_values: np.ndarray
    hidden: np.ndarray | None
    head: np.ndarray | None


def head_divergence(
    hidden: np.ndarray,
    head: np.ndarray,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    teacher: np.ndarray | None = None,
    teacher_hidden: np.ndarray | None = None,
    teacher_head: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    log_probs: np.ndarray | None = None,
    tail: Any = "bucket",
    temperature: float = 1.0,
    labels: Any = None,
    scale: float = 1.0,
    label_scale: float = 0.0,
    weights: Any = None,
    teacher_is_law: bool = False,
    gradient: bool = True,
    threads: int | None = 1,
) -> HeadDivergence:
    """`row_divergence` of student = hidden head^T, by blocks of rows and tokens, with gradients by both.

    Parameters
    ----------
    hidden : float32 (rows, width)
        of the student, finite
    head : float32 (vocab, width)
        finite; 1 <= vocab < 2^31
    kind : str, default "forward_kl"
        as in `row_divergence`, but for "adaptive_kl", which wants a row of logits as a whole
    parameter : float, optional
        the number that some kinds take; None: its default
    teacher : float32, float64, float16, or uint16 that are bits of bfloat16 (rows, vocab), optional
        its logits; none for "entropy"
    teacher_hidden, teacher_head : float32 (rows, teacher width) and (vocab, teacher width), optional
        in place of them
    tokens, log_probs : int32 and float32 or float64 (rows, k), optional
        in place of them, a teacher that is known at k tokens of each row: as in `row_divergence_topk`
    tail : str, default "bucket"
        likewise
    temperature : float, default 1.0
        that logits are divided by, those of a label's cross entropy aside, above 0
    labels : int32 (rows,), optional
        a token a row, or -1 for none
    scale, label_scale : float, default 1.0 and 0.0
        what the gradients by divergence and by cross entropy are multiplied by
    weights : float64 (rows,), optional
        likewise, by row; a row of weight 0 is not read; None: ones
    teacher_is_law : bool, default False
        the teacher is probabilities
    gradient : bool, default True
        False: values alone
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    HeadDivergence

    Raises
    ------
    ArgumentError
    NotFiniteError
        for a row whose logits, or the teacher's, have NaN or +inf, or nothing but -inf; where the divergence is infinite, or a
        gradient beyond float32
    """
    rows, width = check_array("hidden", hidden, np.float32, ("rows", "width"))
    vocab, _ = check_array("head", head, np.float32, ("vocab", width))
    if width == 0 or not 0 < vocab < 2**31:
        raise ArgumentError(f"head must have rows, fewer than 2^31, and columns, got shape {head.shape}")
    threads, (kind, number) = check_threads(threads), resolve(kind, parameter)
    ways = [
        teacher is not None,
        teacher_hidden is not None or teacher_head is not None,
        tokens is not None or log_probs is not None,
    ]
    if kind == "entropy" and any(ways):
        raise ArgumentError("entropy is the student's alone: there must be no teacher")
    if kind != "entropy" and (
        sum(ways) != 1 or (teacher_hidden is None) != (teacher_head is None) or (tokens is None) != (log_probs is None)
    ):
        raise ArgumentError(
            "the teacher must be given by its logits, or by teacher_hidden and teacher_head, or by tokens and log_probs"
        )
    if kind == "adaptive_kl" and tokens is None:
        raise ArgumentError("adaptive_kl wants whole rows of logits: take row_divergence, or another kind")
    teacher_width = k = 0
    if teacher is not None:
        check_array("teacher", teacher, LOGITS, (rows, vocab))
    elif teacher_hidden is not None and teacher_head is not None:
        _, teacher_width = check_array("teacher_hidden", teacher_hidden, np.float32, (rows, "width"))
        check_array("teacher_head", teacher_head, np.float32, (vocab, teacher_width))
        if teacher_width == 0:
            raise ArgumentError(f"teacher_head must have columns, got shape {teacher_head.shape}")
    elif tokens is not None and log_probs is not None:
        k = check_topk(kind, tokens, log_probs, rows, vocab)
    found, weights = as_tokens(labels, rows, vocab), as_weights(weights, rows)
    kept = np.flatnonzero(weights)
    some = len(kept) < rows
    states, targets = (None if each is None else each[kept] if some else each for each in (hidden, teacher_hidden))
    ids, laws, log_tail = _lists(tokens, log_probs, tail, kept, weights)
    words, by = None if found is None else found[kept], weights[kept]
    values, label_values = np.zeros(len(kept)), np.zeros(len(kept))
    by_hidden, by_head = None, None
    if check_flag("gradient", gradient):
        by_hidden, by_head = np.zeros((len(kept), width), np.float32), np.zeros((vocab, width), np.float32)
    held = [
        const(states), const(head), const(teacher), const(kept), const(targets), const(teacher_head),
        const(ids), const(laws), const(log_tail), const(words), const(by),
        pointer(values), pointer(label_values), pointer(by_hidden), pointer(by_head),
    ]  # fmt: skip
    native = ffi.new("struct fd_head_divergence *")
    native.set = settings(
        kind, number, 32, lib.FD_NUMBERS_F32, lib.FD_NUMBERS_F32 if teacher is None else NUMBERS[teacher.dtype],
        check_flag("teacher_is_law", teacher_is_law), temperature, scale, label_scale,
    )  # fmt: skip
    native.rows, native.vocab, native.width, native.teacher_width, native.k = len(kept), vocab, width, teacher_width, k
    for name, place in zip(_POINTERS, held, strict=True):
        setattr(native, name, place)
    if len(kept):
        workspace = aligned_bytes(lib.fd_head_divergence_workspace(native))
        lib.fd_head_divergence(native, pointer(workspace), threads)
    wrong = ~(np.isfinite(values) & np.isfinite(label_values))
    if wrong.any():
        _refuse_row(int(kept[wrong.argmax()]), kind, values[wrong][0])
    for name, each in (("hidden states", by_hidden), ("head", by_head)):
        if (
            each is not None and not np.isfinite([each.max(initial=0), each.min(initial=0)]).all()
        ):  # without a mask as large
            raise NotFiniteError(
                f"head_divergence: the gradient by the {name} is beyond float32: weights, scale or 1 / temperature are too large"
            )
    if some:
        values, label_values, by_hidden = (_spread(each, kept, rows) for each in (values, label_values, by_hidden))
    return HeadDivergence(values, label_values, by_hidden, by_head)


_POINTERS = (
    "hidden", "head", "teacher", "index", "teacher_hidden", "teacher_head", "tokens", "log_probs", "tail", "labels", "weights", "values", "label_values",
    "hidden_gradient", "head_gradient",
)  # fmt: skip


def _lists(tokens: Any, log_probs: Any, tail: Any, kept: np.ndarray, weights: np.ndarray) -> tuple[Any, Any, Any]:
    """Tokens ascending, log probabilities and the tail's, of rows that count; None where there is no list."""
    if tokens is None:
        return None, None, None
    log_tail = log_tail_of(tail, tokens, log_probs, weights, np.float32)
    order = np.argsort(tokens[kept], axis=1, kind="stable")
    ids = np.take_along_axis(tokens[kept], order, axis=1)
    twice = ((np.diff(ids, axis=1) == 0) & (ids[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise ArgumentError(f"tokens must list each token once a row, got one twice in row {kept[twice.argmax()]}")
    laws = np.take_along_axis(log_probs[kept], order, axis=1).astype(np.float32)
    return ids, laws, None if log_tail is None else log_tail[kept]


def _spread(kept_rows: Any, kept: np.ndarray, rows: int) -> Any:
    """The rows that count in their places, zeros in the others."""
    if kept_rows is None:
        return None
    whole = np.zeros((rows, *kept_rows.shape[1:]), kept_rows.dtype)
    whole[kept] = kept_rows
    return whole


def _refuse_row(row: int, kind: str, value: float) -> NoReturn:
    if np.isnan(value):
        raise NotFiniteError(
            f"head_divergence: row {row}: its logits, or the teacher's, hold a NaN or +inf, or nothing but -inf"
        )
    if np.isfinite(value):
        raise NotFiniteError(f"head_divergence: row {row}: its label has no probability")
    raise NotFiniteError(
        f"head_divergence: row {row}: {kind} is infinite: one side gives a probability to what the other bans, or logits are too far "
        'apart for float32: take a kind that is bounded, such as "jsd"'
    )
