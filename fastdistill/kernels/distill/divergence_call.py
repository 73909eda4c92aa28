"""What the calls of divergences have in common: options, what C writes, what was wrong with a row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array, check_flag, check_number
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels.boundary import const, ffi, lib, pointer, same_memory
from fastdistill.kernels.distill.kinds import KINDS

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


class Call:
    """What the calls of divergences have in common: their options, checked, and what C writes."""

    def __init__(
        self, where: str, student: np.ndarray, kind: str, number: float, temperature: Any, labels: Any, scale: Any, label_scale: Any, weights: Any,
        gradient: Any, out: Any, teacher_numbers: int, teacher_is_law: bool,
    ) -> None:  # fmt: skip
        rows, vocab = student.shape
        self.where, self.student, self.out = where, student, out
        self.labels = None if labels is None else as_array("labels", labels, np.int32, (rows,))
        if self.labels is not None and rows and not (self.labels.min() >= -1 and self.labels.max() < vocab):
            row = int(((self.labels < -1) | (self.labels >= vocab)).argmax())
            raise ArgumentError(f"labels must be tokens below {vocab}, or -1, got {self.labels[row]} in row {row}")
        self.weights = np.ones(rows) if weights is None else as_array("weights", weights, np.float64, (rows,))
        if not np.isfinite(self.weights).all():
            raise ArgumentError(f"weights must be finite, got {self.weights[~np.isfinite(self.weights)][0]}")
        real: Any = np.float64 if student.dtype == np.float64 else np.float32
        made = None
        if check_flag("gradient", gradient):
            made = np.empty((rows, vocab), real) if out is None else out
            check_array("out", made, real, (rows, vocab), written=True)
        elif out is not None:
            raise ArgumentError("out is for the gradient, got gradient=False")
        forward, reverse = {"jeffreys": (1.0, 1.0), "mixed_kl": (number, 1 - number)}.get(kind, (0.0, 0.0))
        self.native = ffi.new(
            "struct fd_divergence *",
            {
                "kind": KINDS[kind].native, "bits": np.dtype(real).itemsize * 8, "student_numbers": NUMBERS[student.dtype],
                "teacher_numbers": teacher_numbers, "teacher_is_law": teacher_is_law, "forward": forward, "reverse": reverse,
                "parameter": number, "temperature": check_number("temperature", temperature, 1e-6, 1e6),
                "scale": check_number("scale", scale, -1e30, 1e30), "label_scale": check_number("label_scale", label_scale, -1e30, 1e30),
            },
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
        """Raise where the label is what makes the row wrong."""
        if np.isfinite(self.result.values[row]) and self.labels is not None:
            raise NotFiniteError(f"{self.where}: row {row}: its label {self.labels[row]} is banned by the student")
