"""Ops that multiply rows by a matrix: csrc/kernels/forward/linear.c and head.c."""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.adjoints.linear import head_adjoint, linear_adjoint
from fastdistill.ops.kind import BIAS, MATRIX, OpKind, StepKind, matrix_width
from fastdistill.reference.forward.linear import linear as reference_linear


def linear(x: np.ndarray, matrix: Tensor, bias: np.ndarray | None = None) -> np.ndarray:
    """The matrix (outputs, inputs) times each row of x, plus the bias (outputs,), as `kernels.linear` means it."""
    return reference_linear(x, matrix.format, matrix.data, matrix.scale, matrix.minimum, bias)


def head(x: np.ndarray, matrix: Tensor, bias: np.ndarray | None = None, *, softcap: float = 0.0) -> np.ndarray:
    """`linear`; with a softcap c, c tanh(y / c) of its y (Gemma 2)."""
    y = linear(x, matrix, bias)
    return softcap * np.tanh(y.astype(np.float64) / softcap) if softcap else y


KINDS = (
    OpKind(
        name="linear",
        meaning="w x, plus b where there is one",
        reference=linear,
        weights=(MATRIX, BIAS),
        width=matrix_width,
        steps=(StepKind("linear", joins=True, reads_weights=True),),
        adjoint=linear_adjoint,
    ),
    OpKind(
        name="head",
        meaning="w x, plus b where there is one, then, with a softcap c, c tanh(of it / c): logits, and their statistics",
        reference=head,
        weights=(MATRIX, BIAS),
        constants={"softcap": "softcap"},
        width=matrix_width,
        steps=(StepKind("head", writes=False, reads_weights=True), StepKind("head_merge", writes=False)),
        adjoint=head_adjoint,
    ),
)
