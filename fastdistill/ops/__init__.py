"""The ops that plans are made of, by name; a record each, in the file of its kin."""

from __future__ import annotations

from fastdistill.ops import activation, adjoints, attention, elementwise, experts, linear, rotary
from fastdistill.ops.attention import windowed
from fastdistill.ops.kind import (
    BIAS,
    CROSS,
    ENCODE,
    MATRIX,
    MATRIX_SUM,
    OWN,
    SUMS,
    TABLE,
    VECTOR,
    VECTOR_SUM,
    OpKind,
    Reverse,
    StepKind,
    Table,
)

OPS = {
    kind.name: kind
    for module in (elementwise, activation, linear, experts, rotary, attention, adjoints)
    for kind in module.KINDS
}

__all__ = [
    "BIAS",
    "CROSS",
    "ENCODE",
    "MATRIX",
    "MATRIX_SUM",
    "OPS",
    "OWN",
    "SUMS",
    "TABLE",
    "VECTOR",
    "VECTOR_SUM",
    "OpKind",
    "Reverse",
    "StepKind",
    "Table",
    "windowed",
]
