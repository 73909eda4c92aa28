"""Ops that multiply rows by a matrix: csrc/kernels/forward/linear.c and head.c."""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.kind import BIAS, MATRIX, OpKind, StepKind, matrix_width
from fastdistill.reference.forward.linear import linear as reference_linear


def linear(x: np.ndarray, matrix: Tensor, bias: np.ndarray | None = None) -> np.ndarray:
    """The matrix (outputs, inputs) times each row of x, plus the bias (outputs,), as `kernels.linear` means it."""
    return reference_linear(x, matrix.format, matrix.data, matrix.scale, matrix.minimum, bias)


KINDS = (
    OpKind(
        name="linear",
        meaning="w x, plus b where there is one",
        reference=linear,
        weights=(MATRIX, BIAS),
        width=matrix_width,
        steps=(StepKind("linear", joins=True, reads_weights=True),),
    ),
    OpKind(
        name="head",
        meaning="w x, plus b where there is one: logits, and their statistics",
        reference=linear,
        weights=(MATRIX, BIAS),
        width=matrix_width,
        steps=(StepKind("head", writes=False, reads_weights=True), StepKind("head_merge", writes=False)),
    ),
)
