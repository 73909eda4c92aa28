"""What the calls of divergences have in common: options, what C writes, what was wrong with a row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array, check_flag, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import const, ffi, lib, pointer, same_memory
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.messages import short

NUMBERS = {
    np.dtype(np.float32): lib.FD_NUMBERS_F32,
    np.dtype(np.float64): lib.FD_NUMBERS_F64,
    np.dtype(np.float16): lib.FD_NUMBERS_F16,
    np.dtype(np.uint16): lib.FD_NUMBERS_BF16,
}
LOGITS = (np.float32, np.float64, np.float16, np.uint16)  # dtypes that logits may have


class RowDivergence(NamedTuple):
    """Divergences of rows and their gradient.

    Attributes
    ----------
    values : float64 (rows,)
        the divergence of each row; 0 where its weight is 0
    label_values : float64 (rows,)
        -log q of its label at temperature 1; 0 where it has none
    gradient : float32 or float64 (rows, vocab), or None
        by the student's logits, of sum weights (scale values + label_scale label_values)
    """

    values: np.ndarray
    label_values: np.ndarray
    gradient: np.ndarray | None


def floats(logits: np.ndarray) -> np.ndarray:
    """Logits of any dtype in LOGITS as NumPy reads them."""
    return (logits.astype(np.uint32) << 16).view(np.float32) if logits.dtype == np.uint16 else logits


def as_tokens(labels: Any, rows: int, vocab: int) -> np.ndarray | None:
    """int32 (rows,): tokens below vocab, or -1; None where there are no labels."""
    if labels is None:
        return None
    found = as_array("labels", labels, np.int32, (rows,))
    wrong = (found < -1) | (found >= vocab)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(f"labels must be tokens below {vocab}, or -1, got {found[row]} in row {row}")
    return found


def as_weights(weights: Any, rows: int) -> np.ndarray:
    """float64 (rows,): finite; ones where there are no weights."""
    found = np.ones(rows) if weights is None else as_array("weights", weights, np.float64, (rows,))
    if not np.isfinite(found).all():
        raise ArgumentError(f"weights must be finite, got {found[~np.isfinite(found)][0]}")
    return found


def settings(
    kind: str, number: float, bits: int, student_numbers: int, teacher_numbers: int, teacher_is_law: bool, temperature: Any, scale: Any,
    label_scale: Any,
) -> dict[str, Any]:  # fmt: skip
    """struct fd_divergence, of a kind that is resolved."""
    least = 1e-5 if bits == 32 else 1e-13  # nearer to an end the rounding of probabilities is all that is left
    if kind in ("alpha", "renyi") and min(number, 1 - number) < least:
        raise ArgumentError(
            f"parameter (alpha of {kind}) must be an end or {least:g} away from it in float{bits}, got {short(number)}"
        )
    forward, reverse = {"jeffreys": (1.0, 1.0), "mixed_kl": (number, 1 - number)}.get(kind, (0.0, 0.0))
    return {
        "kind": KINDS[kind].native, "bits": bits, "student_numbers": student_numbers, "teacher_numbers": teacher_numbers,
        "teacher_is_law": teacher_is_law, "forward": forward, "reverse": reverse, "parameter": number,
        "temperature": check_number("temperature", temperature, 1e-6, 1e6), "scale": check_number("scale", scale, -1e30, 1e30),
        "label_scale": check_number("label_scale", label_scale, -1e30, 1e30),
    }  # fmt: skip


class Call:
    """What the calls of divergences have in common: their options, checked, and what C writes."""

    def __init__(
        self, where: str, student: np.ndarray, kind: str, number: float, temperature: Any, labels: Any, scale: Any, label_scale: Any, weights: Any,
        gradient: Any, out: Any, teacher_numbers: int, teacher_is_law: bool,
    ) -> None:  # fmt: skip
        rows, vocab = student.shape
        self.where, self.student, self.out = where, student, out
        self.labels, self.weights = as_tokens(labels, rows, vocab), as_weights(weights, rows)
        real: Any = np.float64 if student.dtype == np.float64 else np.float32
        made = None
        if check_flag("gradient", gradient):
            made = np.empty((rows, vocab), real) if out is None else out
            check_array("out", made, real, (rows, vocab), written=True)
        elif out is not None:
            raise ArgumentError("out is for the gradient, got gradient=False")
        self.native = ffi.new(
            "struct fd_divergence *",
            settings(
                kind, number, np.dtype(real).itemsize * 8, NUMBERS[student.dtype], teacher_numbers, teacher_is_law, temperature, scale,
                label_scale,
            ),
        )  # fmt: skip
        self.result = RowDivergence(np.empty(rows), np.empty(rows), made)

    @property
    def overwritten(self) -> bool:
        """Whether the gradient takes the student's place."""
        return self.out is not None and same_memory(self.out, self.student)

    def reads(self, **others: np.ndarray | None) -> dict[str, np.ndarray | None]:
        """What C reads, for `written`."""
        return {
            **({} if self.overwritten else {"student": self.student}),
            "labels": self.labels,
            "weights": self.weights,
            **others,
        }

    def pointers(self) -> list[Any]:
        """Labels, weights, and what is written."""
        return [const(self.labels), const(self.weights), *map(pointer, self.result)]

    def wrong_row(self) -> int | None:
        """The first row whose values are no numbers."""
        wrong = ~(np.isfinite(self.result.values) & np.isfinite(self.result.label_values))
        return int(wrong.argmax()) if wrong.any() else None

    def logits(self, row: int) -> np.ndarray | None:
        """The student's, where they have not been overwritten."""
        return None if self.overwritten else floats(self.student[row])

    def refuse_label(self, row: int) -> None:
        """Raise where the divergence is not what makes the row wrong."""
        if not np.isfinite(self.result.values[row]):
            return
        if np.isnan(self.result.label_values[row]):
            raise NotFiniteError(
                f"{self.where}: row {row}: its gradient is beyond float{self.native.bits}: weights, scale or 1 / temperature are too large"
            )
        if self.labels is not None:
            raise NotFiniteError(f"{self.where}: row {row}: its label {self.labels[row]} is banned by the student")
