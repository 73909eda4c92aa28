"""Ops that treat each row on its own: csrc/kernels/forward/elementwise.c."""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.adjoints.elementwise import (
    add_adjoint,
    embedding_adjoint,
    position_embedding_adjoint,
    read_adjoint,
    scale_adjoint,
)
from fastdistill.ops.adjoints.norm import OF_NORMS, SHARED, norm_adjoint, normed, normed_width
from fastdistill.ops.kind import TABLE, VECTOR, OpKind, PassRows, token_column


def embedding(table: Tensor, *, column: int = 0, request: PassRows) -> np.ndarray:
    """Rows of the table (vocab_size, width) for a column of the tokens, zeros for none (-1), or the rows given as inputs."""
    if request.tokens is None:
        assert request.inputs is not None
        return request.inputs
    tokens = token_column(request, column)
    return np.where(tokens[:, None] >= 0, table.to_float32()[tokens], 0)


def position_embedding(table: Tensor, *, request: PassRows) -> np.ndarray:
    """Rows of the table (positions, width) for the positions."""
    return table.to_float32()[request.positions]


def read(x: np.ndarray, *, request: PassRows) -> np.ndarray:
    """The rows that the caller reads."""
    return x[request.read_rows]


def rms_norm(x: np.ndarray, weight: np.ndarray, *, epsilon: float, head_dim: int = 0, heads: int = 1) -> np.ndarray:
    """x (rows, width) / sqrt(mean x^2 + epsilon) * weight (width / heads,), in float64 (Zhang and Sennrich 2019).

    The mean is of the row, or, with head_dim, of each head: so many numbers in sequence. So many `heads` share the weight.
    """
    return normed(x, epsilon, head_dim, centred=False)[0].reshape(x.shape) * np.tile(weight, heads)


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, epsilon: float, head_dim: int = 0, heads: int = 1
) -> np.ndarray:
    """The same of x - mean x, plus bias (width / heads,) (Ba et al. 2016)."""
    return normed(x, epsilon, head_dim, centred=True)[0].reshape(x.shape) * np.tile(weight, heads) + np.tile(
        bias, heads
    )


def scale(x: np.ndarray, *, factor: float) -> np.ndarray:
    """x * factor, the factor rounded to float32."""
    return x * np.float64(np.float32(factor))


KINDS = (
    OpKind(
        name="embedding",
        meaning="w[token], of one of the row's tokens, or the row given as input",
        reference=embedding,
        of_pass=True,
        inputs=(0,),
        weights=(TABLE,),
        constants={"column": "first"},
        width=lambda widths, shapes, constants: shapes[0][1],
        adjoint=embedding_adjoint,
    ),
    OpKind(
        name="position_embedding",
        meaning="w[position]",
        reference=position_embedding,
        of_pass=True,
        inputs=(0,),
        weights=(TABLE,),
        width=lambda widths, shapes, constants: shapes[0][1],
        adjoint=position_embedding_adjoint,
    ),
    OpKind(
        name="rms_norm",
        meaning="x / sqrt(mean x^2 + epsilon) * w, the mean of the row, or of each head; heads may share w",
        reference=rms_norm,
        weights=(VECTOR,),
        constants=OF_NORMS | SHARED,
        width=normed_width,
        quantises=True,
        adjoint=norm_adjoint,
    ),
    OpKind(
        name="layer_norm",
        meaning="the same of x - mean x, plus b",
        reference=layer_norm,
        weights=(VECTOR, VECTOR),
        constants=OF_NORMS | SHARED,
        width=normed_width,
        quantises=True,
        adjoint=norm_adjoint,
    ),
    OpKind(
        name="scale",
        meaning="x * factor",
        reference=scale,
        constants={"factor": "scalar"},
        adjoint=scale_adjoint,
    ),
    OpKind(
        name="add",
        meaning="x + y",
        reference=np.add,
        inputs=(2,),
        epilogue=("FD_RESIDUAL", 1),
        writes_over=0,
        adjoint=add_adjoint,
    ),
    OpKind(
        name="read",
        meaning="the rows of x that the caller reads",
        reference=read,
        of_pass=True,
        selects=True,
        adjoint=read_adjoint,
    ),
)
