"""The ops that plans are made of, by name; a record each, in the file of its kin."""

from __future__ import annotations

from fastdistill.ops import activation, attention, elementwise, experts, linear, rotary
from fastdistill.ops.attention import windowed
from fastdistill.ops.kind import BIAS, MATRIX, OWN, TABLE, VECTOR, OpKind, StepKind, Table

OPS = {
    kind.name: kind for module in (elementwise, activation, linear, experts, rotary, attention) for kind in module.KINDS
}

__all__ = ["BIAS", "MATRIX", "OPS", "OWN", "TABLE", "VECTOR", "OpKind", "StepKind", "Table", "windowed"]
