"""Of ops that multiply rows by a matrix: csrc/kernels/train/linear_gradient.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.kind import MATRIX_SUM, TABLE, VECTOR_SUM, OpKind, Reverse, StepKind

MOST_PRODUCTS = 16  # that one op sums
SHARED = {"heads": "heads"}  # of a weight of one axis: how many heads of a row share it


def linear_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """y = W x + b: dx = W^T dy, dW = dy x^T, db = dy, summed over rows.

    A quantised matrix takes rounded rows; their gradient is that of rows that are not rounded (straight through: Bengio et
    al. 2013).
    """
    (x,), (matrix, *biases) = op.inputs, op.weights
    if reverse.wants(x):
        reverse.give_product(x, gradient, matrix)
    if reverse.trains(matrix):
        reverse.op("linear_weight_gradient", x, gradient, weights=(matrix,))
    for bias in filter(reverse.trains, biases):
        reverse.op("column_sums", gradient, weights=(bias,))


def head_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """That of a linear, behind that of the cap of what it gives, which is made again.

    It is for the reference: in C a head gives statistics; training has a `linear` and a `softcap` in its place.
    """
    if op.constants.get("softcap"):
        uncapped = reverse.op("linear", *op.inputs, weights=op.weights)
        gradient = reverse.op("softcap_gradient", uncapped, gradient, softcap=op.constants["softcap"])
    linear_adjoint(reverse, op, gradient)


def linear_input_gradient(*arrays: Any) -> np.ndarray:
    """The sum of dy (rows, outputs) times matrix (outputs, inputs) over pairs of both, in float64: first all dy, then all matrices."""
    half = len(arrays) // 2
    return sum(
        dy.astype(np.float64) @ as_numbers(matrix).astype(np.float64)
        for dy, matrix in zip(arrays[:half], arrays[half:], strict=True)
    )


def linear_weight_gradient(x: np.ndarray, dy: np.ndarray, gradient: np.ndarray) -> None:
    """gradient (outputs, inputs) += dy^T x, in float64."""
    gradient += dy.T.astype(np.float64) @ x.astype(np.float64)


def column_sums(dy: np.ndarray, gradient: np.ndarray, *, heads: int = 1) -> None:
    """gradient (width / heads,) += the sum over rows, and so many heads of each, in float64."""
    gradient += dy.reshape(-1, dy.shape[1] // heads).sum(axis=0, dtype=np.float64)


def as_numbers(tensor: Tensor) -> np.ndarray:
    """A tensor's values; float64 where a test has them so."""
    return tensor.data if tensor.format == "f32" else tensor.to_float32()


def _products_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    assert [*widths] == [outputs for outputs, _ in shapes] and len({inputs for _, inputs in shapes}) == 1, (
        widths,
        shapes,
    )
    return shapes[0][1]


def sum_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """Of an op that adds to a gradient: it makes no value."""
    return 0


KINDS = (
    OpKind(
        name="linear_input_gradient",
        meaning="the sum of x w over its pairs of x, y, .. and w, v, ..: the gradient by what linears read",
        reference=linear_input_gradient,
        inputs=tuple(range(1, MOST_PRODUCTS + 1)),
        weights=(TABLE,),
        repeated=True,
        width=_products_width,
        steps=(StepKind("linear_input_gradient", reads_weights=True),),
    ),
    OpKind(
        name="linear_weight_gradient",
        meaning="adds the sum over rows of y x^T to the gradient of w",
        reference=linear_weight_gradient,
        inputs=(2,),
        weights=(MATRIX_SUM,),
        width=sum_width,
        steps=(StepKind("linear_weight_gradient", writes=False, adds_products=True),),
    ),
    OpKind(
        name="column_sums",
        meaning="adds the sum over rows of x, and over their heads where these share w, to the gradient of w",
        reference=column_sums,
        weights=(VECTOR_SUM,),
        constants=SHARED,
        width=sum_width,
        steps=(StepKind("column_sums", writes=False),),
    ),
)
