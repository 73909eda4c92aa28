"""How far the student's law is from the teacher's, row by row, and the gradient by the student's logits."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from fastdistill.arguments import check_array, check_flag
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import aligned_bytes, const, lib, pointer, written
from fastdistill.kernels.distill.divergence_call import LOGITS, NUMBERS, Call, RowDivergence, floats
from fastdistill.kernels.distill.kinds import resolve
from fastdistill.kernels.threads import check_threads


def row_divergence(
    student: np.ndarray,
    teacher: np.ndarray | None,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    temperature: float = 1.0,
    labels: Any = None,
    scale: float = 1.0,
    label_scale: float = 0.0,
    weights: Any = None,
    teacher_is_law: bool = False,
    gradient: bool = True,
    out: np.ndarray | None = None,
    threads: int | None = 1,
) -> RowDivergence:
    """Divergences of rows between p = softmax(teacher / temperature) and q = softmax(student / temperature), and a gradient.

    Parameters
    ----------
    student : float32, float64, float16, or uint16 that are bits of bfloat16 (rows, vocab)
        logits; 1 <= vocab < 2^31; -inf is a ban
    teacher : the same dtypes (rows, vocab), or None for "entropy"
        logits; log probabilities are logits too
    kind : str, default "forward_kl"
        one of KINDS, which gives each one's formula
    parameter : float, optional
        the number that some kinds take; None: its default
    temperature : float, default 1.0
        that logits are divided by, those of a label's cross entropy aside, above 0
    labels : int32 (rows,), optional
        a token a row, or -1 for none
    scale, label_scale : float, default 1.0 and 0.0
        what the gradients by divergence and by cross entropy are multiplied by
    weights : float64 (rows,), optional
        likewise, by row; a row of weight 0 is not read; None: ones
    teacher_is_law : bool, default False
        the teacher is probabilities, normalised again after tempering
    gradient : bool, default True
        False: values alone
    out : float32 or float64 (rows, vocab), optional
        the gradient, filled and returned; the student's own memory, where it has that dtype, or apart from all others
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    RowDivergence
        gradient in float64 where the student is, else float32, in which it is computed too

    Raises
    ------
    ArgumentError
    NotFiniteError
        for a row with NaN or +inf, or nothing but -inf, and where the divergence is infinite or a gradient beyond its dtype; out then
        holds no gradient

    References
    ----------
    In KINDS.
    """
    rows, vocab = check_array("student", student, LOGITS, ("rows", "vocab"))
    if not 0 < vocab < 2**31:
        raise ArgumentError(f"student must have at least one column and fewer than 2^31, got shape {student.shape}")
    kind, number = resolve(kind, parameter)
    if kind == "entropy":
        if teacher is not None:
            raise ArgumentError("entropy is the student's alone: teacher must be None")
    else:
        check_array("teacher", teacher, LOGITS, (rows, vocab))
    call = Call(
        "row_divergence", student, kind, number, temperature, labels, scale, label_scale, weights, gradient, out,
        NUMBERS[(student if teacher is None else teacher).dtype], check_flag("teacher_is_law", teacher_is_law),
    )  # fmt: skip
    threads = check_threads(threads)
    workspace = aligned_bytes(lib.fd_row_divergence_workspace(call.native.bits, vocab) * min(threads, max(rows, 1)))
    with written({"out": out}, call.reads(teacher=teacher)):
        lib.fd_row_divergence(
            call.native, rows, vocab, const(student), const(teacher), *call.pointers(), pointer(workspace), threads
        )
    row = call.wrong_row()
    if row is not None:
        call.refuse_label(row)
        _refuse_row(row, kind, call, None if teacher is None else floats(teacher[row]), teacher_is_law)
    return call.result


def _refuse_row(row: int, kind: str, call: Call, teacher: np.ndarray | None, is_law: bool) -> NoReturn:
    """Say what is wrong with a row whose divergence is no finite number."""
    logits, student, real = teacher, call.logits(row), f"float{call.native.bits}"
    if teacher is not None and is_law:
        if (teacher < 0).any() or not (teacher > 0).any():
            raise NotFiniteError(
                f"row_divergence: teacher: row {row} is no law: it holds a number below 0, or none above"
            )
        logits = np.where(teacher == 0, -np.inf, teacher)
    for name, z in (("teacher", logits), ("student", student)):
        if z is not None and not np.isfinite(z.max()):  # NaN where there is one
            raise NotFiniteError(f"row_divergence: {name}: row {row} holds a NaN or +inf, or nothing but -inf")
    if np.isnan(call.result.values[row]):
        raise NotFiniteError(f"row_divergence: row {row} holds numbers that are beyond {real}, which it is computed in")
    where = ""
    if student is not None and logits is not None:
        apart = np.isneginf(student) != np.isneginf(logits)
        where = f", as at token {int(apart.argmax())}"
        if not apart.any():
            raise NotFiniteError(
                f"row_divergence: row {row}: {kind} is beyond {real}: logits over temperature are too far apart: "
                'take a kind that is bounded, such as "jsd"'
            )
    raise NotFiniteError(
        f"row_divergence: row {row}: {kind} is infinite, since one side gives a probability to what the other bans{where}: "
        'ban it on both sides, or take a kind that is bounded, such as "jsd"'
    )
