"""Of ops that treat each row on its own: csrc/kernels/train/elementwise_gradient.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.ops.adjoints.linear import sum_width
from fastdistill.ops.kind import MATRIX_SUM, OpKind, PassRows, Reverse, StepKind, token_column


def embedding_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """Each row's gradient belongs to its token's row of the table."""
    if reverse.trains(op.weights[0]):
        reverse.op("embedding_gradient", gradient, weights=op.weights, **op.constants)


def position_embedding_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """Each row's gradient belongs to its position's row of the table."""
    reverse.op("position_embedding_gradient", gradient, weights=op.weights)


def given_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """It ends here: whoever gave the rows may ask for it."""


def read_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """Rows that nobody reads have none."""
    reverse.give(op.inputs[0], reverse.op("spread", gradient))


def add_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """Both have that of the sum."""
    for value in op.inputs:
        reverse.give(value, gradient)


def scale_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """The same factor again."""
    reverse.give(op.inputs[0], reverse.op("scale", gradient, **op.constants))


def given(*, width: int, request: PassRows) -> np.ndarray:
    """The rows (reads, width) given as inputs."""
    assert request.inputs is not None and request.inputs.shape[1] == width
    return request.inputs


def spread(x: np.ndarray, *, request: PassRows) -> np.ndarray:
    """x (reads, width) where its rows were read, zeros elsewhere: (rows, width)."""
    rows = np.zeros((len(request.positions), x.shape[1]), x.dtype)
    rows[request.read_rows] = x
    return rows


def embedding_gradient(dy: np.ndarray, gradient: np.ndarray, *, column: int = 0, request: PassRows) -> None:
    """gradient (vocab_size, width)[token] += the row's dy; nothing for no token, and for rows that were given as inputs."""
    if request.tokens is not None:
        tokens = token_column(request, column)
        np.add.at(gradient, tokens[tokens >= 0], dy[tokens >= 0])


def position_embedding_gradient(dy: np.ndarray, gradient: np.ndarray, *, request: PassRows) -> None:
    """gradient (positions, width)[position] += the row's dy."""
    np.add.at(gradient, request.positions, dy)


KINDS = (
    OpKind(
        name="given",
        meaning="the rows given as input: those of a gradient, or of what a head reads",
        reference=given,
        of_pass=True,
        inputs=(0,),
        constants={"width": ""},
        width=lambda widths, shapes, constants: int(constants["width"]),
        selects=True,
        adjoint=given_adjoint,
    ),
    OpKind(
        name="spread",
        meaning="x in the rows that were read, 0 in all others",
        reference=spread,
        of_pass=True,
        spreads=True,
    ),
    OpKind(
        name="embedding_gradient",
        meaning="adds x of each row to the gradient of w[token]",
        reference=embedding_gradient,
        of_pass=True,
        weights=(MATRIX_SUM,),
        constants={"column": "first"},
        width=sum_width,
        steps=(StepKind("embedding_gradient", writes=False),),
    ),
    OpKind(
        name="position_embedding_gradient",
        meaning="adds x of each row to the gradient of w[position]",
        reference=position_embedding_gradient,
        of_pass=True,
        weights=(MATRIX_SUM,),
        width=sum_width,
        steps=(StepKind("position_embedding_gradient", writes=False),),
    ),
)
