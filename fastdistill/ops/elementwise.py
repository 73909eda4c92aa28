"""Ops that treat each row on its own: csrc/kernels/forward/elementwise.c."""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.kind import TABLE, VECTOR, OpKind, PassRows


def embedding(table: Tensor, *, request: PassRows) -> np.ndarray:
    """Rows of the table (vocab_size, width) for the tokens, or the rows given as inputs."""
    return table.to_float32()[request.tokens] if request.inputs is None else request.inputs


def read(x: np.ndarray, *, request: PassRows) -> np.ndarray:
    """The rows that the caller reads."""
    return x[request.read_rows]


def rms_norm(x: np.ndarray, weight: np.ndarray, *, epsilon: float) -> np.ndarray:
    """x (rows, width) / sqrt(mean x^2 + epsilon) * weight (width,), in float64 (Zhang and Sennrich 2019)."""
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + np.float64(np.float32(epsilon))) * weight


def silu_mul(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """gate / (1 + e^-gate) * up, in float64 (the gate of Shazeer 2020)."""
    gate = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-gate)) * up


KINDS = (
    OpKind(
        name="embedding",
        meaning="w[token], or the row given as input",
        reference=embedding,
        of_pass=True,
        inputs=(0,),
        weights=(TABLE,),
        width=lambda widths, shapes, constants: shapes[0][1],
    ),
    OpKind(
        name="rms_norm",
        meaning="x / sqrt(mean x^2 + epsilon) * w",
        reference=rms_norm,
        weights=(VECTOR,),
        constants={"epsilon": "scalar"},
        quantises=True,
    ),
    OpKind(
        name="add",
        meaning="x + y",
        reference=np.add,
        inputs=(2,),
        epilogue=("FD_RESIDUAL", 1),
        writes_over=0,
    ),
    OpKind(
        name="silu_mul",
        meaning="silu(x) * y",
        reference=silu_mul,
        inputs=(2,),
        epilogue=("FD_GATED", 2),
    ),
    OpKind(
        name="read",
        meaning="the rows of x that the caller reads",
        reference=read,
        of_pass=True,
        selects=True,
    ),
)
