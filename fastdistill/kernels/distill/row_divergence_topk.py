"""row_divergence where the teacher is known at a few tokens of each row."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import aligned_bytes, const, lib, pointer, written
from fastdistill.kernels.distill.divergence_call import LOGITS, NUMBERS, Call, RowDivergence
from fastdistill.kernels.distill.kinds import resolve
from fastdistill.kernels.threads import check_threads
from fastdistill.messages import short

_ELSEWHERE = "entropy", "logit_mse", "probability_mse"  # which are no divergences between laws
_SLACK = 1e-2  # by which a teacher's rounded probabilities may sum up to more than 1


def row_divergence_topk(
    student: np.ndarray,
    tokens: np.ndarray,
    log_probs: np.ndarray,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    tail: Any = "bucket",
    temperature: float = 1.0,
    labels: Any = None,
    scale: float = 1.0,
    label_scale: float = 0.0,
    weights: Any = None,
    gradient: bool = True,
    out: np.ndarray | None = None,
    threads: int | None = 1,
) -> RowDivergence:
    """Divergences of rows between a teacher that is known at k tokens and q = softmax(student / temperature), and a gradient.

    Parameters
    ----------
    student : float32, float64, float16, or uint16 that are bits of bfloat16 (rows, vocab)
        logits; -inf is a ban
    tokens : int32 (rows, k)
        k >= 1 of them a row, each once, in any order; -1 for none
    log_probs : float32 or float64 (rows, k)
        the teacher's log p of them
    kind : str, default "forward_kl"
        as in `row_divergence`, but for "entropy", "logit_mse" and "probability_mse"
    parameter : float, optional
        the number that some kinds take; None: its default
    tail : str, default "bucket"
        "bucket": the other tokens are one outcome, of what is left of 1; the log_probs are of the law at this temperature.
        Or its probability, float64 (rows,).  "drop": both laws are normalised over the tokens, the log_probs tempered.
    temperature : float, default 1.0
        that the student's logits are divided by, those of a label's cross entropy aside, above 0
    labels : int32 (rows,), optional
        a token a row, or -1 for none
    scale, label_scale : float, default 1.0 and 0.0
        what the gradients by divergence and by cross entropy are multiplied by
    weights : float64 (rows,), optional
        likewise, by row; a row of weight 0 is not read; None: ones
    gradient : bool, default True
        False: values alone
    out : float32 or float64 (rows, vocab), optional
        the gradient, filled and returned; the student's own memory, where it has that dtype, or apart from all others
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    RowDivergence
        with tail="drop" the divergence's gradient is 0 at tokens that are not listed

    Raises
    ------
    ArgumentError
        also for a token that a row lists twice
    NotFiniteError
        for a row with NaN or +inf, or nothing but -inf, and where the divergence is infinite; out then holds no gradient
    """
    rows, vocab = check_array("student", student, LOGITS, ("rows", "vocab"))
    if not 0 < vocab < 2**31:
        raise ArgumentError(f"student must have at least one column and fewer than 2^31, got shape {student.shape}")
    kind, number = resolve(kind, parameter)
    k = check_topk(kind, tokens, log_probs, rows, vocab)
    call = Call(
        "row_divergence_topk", student, kind, number, temperature, labels, scale, label_scale, weights, gradient, out,
        NUMBERS[student.dtype], False,
    )  # fmt: skip
    real: Any = np.float64 if call.native.bits == 64 else np.float32
    given = log_probs.astype(real, copy=False)
    log_tail = log_tail_of(tail, tokens, log_probs, call.weights, real)
    threads = check_threads(threads)
    workspace = aligned_bytes(
        lib.fd_row_divergence_topk_workspace(call.native.bits, vocab, k) * min(threads, max(rows, 1))
    )
    with written({"out": out}, call.reads(tokens=tokens, log_probs=given)):
        lib.fd_row_divergence_topk(
            call.native, rows, vocab, k, const(student), const(tokens), const(given), const(log_tail), *call.pointers(),
            pointer(workspace), threads,
        )  # fmt: skip
    row = call.wrong_row()
    if row is not None:
        _refuse_row(row, kind, call, tokens[row], log_probs[row])
    return call.result


def check_topk(kind: str, tokens: Any, log_probs: Any, rows: int, vocab: int) -> int:
    """k of a teacher that is known at so many tokens of each row, where these are tokens."""
    if kind in _ELSEWHERE:
        raise ArgumentError(f"kind must be a divergence between laws, got {kind}, which row_divergence has")
    _, k = check_array("tokens", tokens, np.int32, (rows, "k"))
    if k == 0:
        raise ArgumentError(f"tokens must have at least one column, got shape {tokens.shape}")
    if rows and not (tokens.min() >= -1 and tokens.max() < vocab):
        wrong = tokens[(tokens < -1) | (tokens >= vocab)][0]
        raise ArgumentError(f"tokens must be below {vocab}, or -1 for none, got {wrong}")
    check_array("log_probs", log_probs, REAL, (rows, k))
    return k


def log_tail_of(
    tail: Any, tokens: np.ndarray, log_probs: np.ndarray, weights: np.ndarray, real: Any
) -> np.ndarray | None:
    """log of what the teacher gives to tokens that are not listed, (rows,), or None for "drop"."""
    if isinstance(tail, str) and tail == "drop":
        return None
    if isinstance(tail, str) and tail == "bucket":
        with np.errstate(over="ignore"):
            listed = np.exp(
                np.where((tokens >= 0) & (weights != 0)[:, None], log_probs, -np.inf), dtype=np.float64
            ).sum(axis=1)
        if (listed > 1 + _SLACK).any():
            row = int((listed > 1 + _SLACK).argmax())
            raise ArgumentError(
                f"log_probs must be of probabilities that sum up to 1 at most, got {listed[row]:.4g} in row {row}"
            )
        mass = 1 - listed
    else:
        mass = as_array("tail", tail, np.float64, (len(tokens),)) if not isinstance(tail, str) else None
        if mass is None:
            raise ArgumentError(f'tail must be "bucket", "drop" or an array of probabilities, got {short(tail)}')
        if not ((mass >= 0) & (mass <= 1))[weights != 0].all():
            raise ArgumentError("tail must be probabilities")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.maximum(mass, 0)).astype(real)


def _refuse_row(row: int, kind: str, call: Call, tokens: np.ndarray, log_probs: np.ndarray) -> None:
    """Say what is wrong with a row whose divergence is no finite number."""
    call.refuse_label(row)
    where, student = f"row_divergence_topk: row {row}", call.logits(row)
    listed = tokens[tokens >= 0]
    if len(np.unique(listed)) < len(listed):
        twice = int(np.sort(listed)[:-1][np.diff(np.sort(listed)) == 0][0])
        raise ArgumentError(f"tokens must list each token once a row, got {twice} twice in row {row}")
    if np.isnan(call.result.values[row]):
        if student is not None and not np.isfinite(student.max()):
            raise NotFiniteError(f"{where} of the student holds a NaN or +inf, or nothing but -inf")
        if not np.isfinite(log_probs[tokens >= 0].max(initial=-np.inf)):
            raise NotFiniteError(f"{where} of log_probs holds a NaN or +inf, or nothing but -inf")
        raise NotFiniteError(f"{where}: the student bans all tokens that the teacher lists")
    raise NotFiniteError(f"{where}: {kind} is infinite, since one side gives a probability to what the other bans")
