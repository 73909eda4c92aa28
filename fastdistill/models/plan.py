"""A Plan: the computation of a model, described once as data.

SSA: every op writes one new value, sizes are symbolic (rows, keys).  The reference executor runs the ops as they stand;
the native one fuses and places them first.  See docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# What an op computes, row by row.  `position`, `slot` and who sees whom belong to the rows, not to the plan.
OP_KINDS = {
    "embedding": "weights[0][token], or the row of the named input",
    "rms_norm": "x / sqrt(mean x^2 + epsilon) * weights[0]",
    "linear": "weights[0] x, plus weights[1] (a bias) where there is one",
    "add": "x + y",
    "silu_mul": "silu(x) * y",
    "rotary": "x with each head rotated by position * inverse_frequencies",
    "attention": "softmax(q k scale) v over the keys that the row's node sees, this forward's included",
    "read": "the rows that the caller reads",
    "head": "weights[0] x, plus weights[1] where there is one: logits, and their statistics",
}


@dataclass(frozen=True)
class Op:
    """One op: its kind, the values it reads, the value it writes, its weights by name and its constants.

    kind       one of OP_KINDS, which says what it computes
    inputs     values that it reads
    output     the value that it writes
    weights    names of tensors
    constants  by name: what `kind` computes with, such as epsilon
    segment    the layer it belongs to; "enter" before the first, "exit" after the last
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    weights: tuple[str, ...]
    constants: Mapping[str, Any]
    segment: int | str


@dataclass(frozen=True)
class Weight:
    """One tensor that the plan uses: its shape, and whether a linear (which may be quantised) reads it.

    shape   (outputs, inputs) of a linear, (width,) of a norm or a bias
    linear  rows are multiplied by it, and it may be quantised
    """

    shape: tuple[int, ...]
    linear: bool


@dataclass(frozen=True, eq=False)
class Ignored:
    """A tensor that a checkpoint may hold and the plan does not use, since something else says the same.

    reason   why it is not used: what the config says
    equals   what it has to equal: a tensor of the plan, by name, or values (shape as stored, any one of them)
    instead  where it equals none: changes of the config, {} where the config is right as it is; None: an error
    """

    reason: str
    equals: str | tuple[np.ndarray, ...]
    instead: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """A model's computation and the tensors it needs; immutable.

    ops            in an order in which they can run
    widths         floats a row, of each value
    weights        tensors by name
    ignored        tensors a checkpoint may hold that are not used, by name or pattern
    taps           values that a session may expose, by name
    boundaries     the value entering layer i; the last one leaves the last layer
    hidden         the value the head reads
    vocab_size     logits a row
    hidden_size    floats a row between layers
    num_layers     layers
    num_heads      of queries, a layer
    num_kv_heads   of keys and values, a layer; divides num_heads
    head_dim       floats a head
    max_positions  of a text, that the model was trained for
    architecture   the name of the family: llama, dream, ...
    positions_source  where max_positions comes from, in words for errors: a key of the config
    causal         trained with rows that see what is before them; else rows see each other: one node a forward
    mask_token     what stands where a masked diffusion model is to write; None: it is none
    logit_shift    1: row i of such a model predicts position i + 1, not its own
    """

    ops: tuple[Op, ...]
    widths: tuple[int, ...]
    weights: Mapping[str, Weight]
    ignored: Mapping[str, Ignored]
    taps: Mapping[str, int]
    boundaries: tuple[int, ...]
    hidden: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    architecture: str
    positions_source: str = "max_position_embeddings"
    causal: bool = True
    mask_token: int | None = None
    logit_shift: int = 0
