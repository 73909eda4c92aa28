"""A Plan: the computation of a model, described once as data.

SSA: every op writes one new value, sizes are symbolic (rows, keys).  The reference executor runs the ops as they stand;
the native one fuses and places them first.  See docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastdistill.cached import cached_property
from fastdistill.models.source import Source
from fastdistill.ops import OPS, OWN

ENTER, EXIT = "enter", "exit"  # segments before the first layer and after the last


@dataclass(frozen=True)
class Op:
    """One op: its kind, the values it reads, the value it writes, its weights by name and its constants.

    Attributes
    ----------
    kind : str
        one of `fastdistill.ops.OPS`, which says what it computes
    inputs : tuple[int, ...]
        values that it reads
    output : int
        the value that it writes
    weights : tuple[str, ...]
        names of tensors
    constants : Mapping[str, Any]
        by name: what `kind` computes with, such as epsilon
    segment : str
        the part of the plan that it belongs to: a layer, ENTER before the first, EXIT after the last
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    weights: tuple[str, ...]
    constants: Mapping[str, Any]
    segment: str


@dataclass(frozen=True)
class Weight:
    """One tensor that the plan uses: its shape, whether a linear (which may be quantised) reads it, where it comes from.

    Attributes
    ----------
    shape : tuple[int, ...]
        (outputs, inputs) of a linear, (width,) of a norm or a bias
    linear : bool
        rows are multiplied by it, and it may be quantised
    source : Source
        what of a checkpoint it is made of
    exact : bool
        a matrix that nobody quantises: a router's, say, whose choice a rounding may change
    """

    shape: tuple[int, ...]
    linear: bool
    source: Source
    exact: bool = False


@dataclass(frozen=True, eq=False)
class Ignored:
    """A tensor that a checkpoint may hold and the plan does not use, since something else says the same.

    Attributes
    ----------
    reason : str
        why it is not used: what the config says
    equals : str | tuple[np.ndarray, ...]
        what it has to equal: another stored tensor, by name, or values (shape as stored, any one of them; (): anything)
    instead : Mapping[str, Any] | None
        where it equals none: changes of the config, {} where the config is right as it is; None: an error
    """

    reason: str
    equals: str | tuple[np.ndarray, ...]
    instead: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """A model's computation and the tensors it needs; immutable.

    Attributes
    ----------
    ops : tuple[Op, ...]
        in an order in which they can run
    widths : tuple[int, ...]
        floats a row, of each value
    weights : Mapping[str, Weight]
        tensors by name
    ignored : Mapping[str, Ignored]
        tensors a checkpoint may hold that are not used, by name or pattern
    taps : Mapping[str, int]
        values that a session may expose, by name
    layers : tuple[str, ...]
        names of the segments that can be run as ranges
    boundaries : tuple[int, ...]
        the value entering layer i; the last one leaves the last layer
    outputs : Mapping[str, int]
        values that a forward gives, by name: "logits", "hidden" (what the head reads), "pooled", ...
    vocab_size : int
        tokens; logits a row
    hidden_size : int
        floats a row between layers
    max_positions : int
        of a text, that the model was trained for
    architecture : str
        the name of the family: llama, dream, ...
    long_beyond : int
        sessions with room for more positions have the long frequencies of `rotary`; 0: there are none
    positions_source : str
        where max_positions comes from, in words for errors: a key of the config
    causal : bool
        trained with rows that see what is before them; else rows see each other: one node a forward
    block : int
        of such a model: positions of a block, counted from 0; rows see their own and those before: a node each. 0: all is one
    mask_token : int | None
        what stands where a masked diffusion model is to write; None: it is none
    logit_shift : int
        1: row i of such a model predicts position i + 1, not its own
    pooling : str
        which row of a text goes through the segment "pool", as of `fastdistill.encode.POOLINGS`; "": there is none
    labels : tuple[str, ...]
        what its output "scores" scores, in order
    problem : str
        what those scores are: "single_label_classification", "multi_label_classification" or "regression"; "": not said
    optional : Mapping[str, Mapping[str, Any]]
        weights that a checkpoint may lack, by the name they are stored under: the changes of the config that do
        without, or the number that fills them
    source_positions : int
        most tokens of a source, which an encoder reads and every row attends to; 0: there is none
    start_token : int | None
        of such a model: what a text begins with
    """

    ops: tuple[Op, ...]
    widths: tuple[int, ...]
    weights: Mapping[str, Weight]
    ignored: Mapping[str, Ignored]
    taps: Mapping[str, int]
    layers: tuple[str, ...]
    boundaries: tuple[int, ...]
    outputs: Mapping[str, int]
    vocab_size: int
    hidden_size: int
    max_positions: int
    architecture: str
    long_beyond: int = 0
    positions_source: str = "max_position_embeddings"
    causal: bool = True
    block: int = 0
    mask_token: int | None = None
    logit_shift: int = 0
    pooling: str = ""
    labels: tuple[str, ...] = ()
    problem: str = ""
    optional: Mapping[str, float | Mapping[str, Any]] = field(default_factory=dict)
    source_positions: int = 0
    start_token: int | None = None

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    @cached_property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors that the weights are made of, by the names they are stored under."""
        return {name: shape for weight in self.weights.values() for name, shape in weight.source.stored.items()}

    def formats(self, stored: Mapping[str, str]) -> dict[str, str]:
        """The format that each weight comes in, of the formats of the stored tensors.

        Raises
        ------
        UnsupportedError
            for a tensor in a format that it cannot be used in
        """
        return {name: weight.source.format(stored) for name, weight in self.weights.items()}

    @cached_property
    def position_rows(self) -> int | None:
        """Positions that all tables of positions have rows for; None without one."""
        tables = [op.weights[0] for op in self.ops if op.kind == "position_embedding"]
        return min((self.weights[name].shape[0] for name in tables), default=None)

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder: its rows see each other, and it gives the hidden states of all."""
        return not self.causal and self.outputs.get("hidden") not in {None, *self.read_values}

    @property
    def only_encodes(self) -> bool:
        """Whether it is an encoder without a masked head: a pass leaves nothing that later ones see, and tokens may have parts."""
        return self.encodes and "logits" not in self.outputs

    @cached_property
    def token_rows(self) -> tuple[int, ...]:
        """Of each token that a row has, one as a rule: rows of the table that it is looked up in."""
        found: dict[int, int] = {}
        for op in self.ops:
            if op.kind == "embedding":
                column, rows = op.constants.get("column", 0), self.weights[op.weights[0]].shape[0]
                found[column] = min(rows, found.get(column, rows))
        return tuple(rows for _, rows in sorted(found.items()))

    @property
    def token_columns(self) -> int:
        """How many tokens a row has."""
        return len(self.token_rows)

    @cached_property
    def key_sets(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Sets of keys and values, the rows' own first: (kv_heads, head_dim) of each layer, in the order of their numbers."""
        found: dict[str, dict[int, tuple[int, int]]] = {OWN: {}}
        for op in self.ops:
            if op.kind in ("attention", "store"):
                c = op.constants
                found.setdefault(c.get("key_set", OWN), {})[c["layer"]] = c["kv_heads"], c["head_dim"]
        return {name: tuple(shape for _, shape in sorted(layers.items())) for name, layers in found.items()}

    @cached_property
    def windows(self) -> dict[str, int]:
        """The key sets that a session holds, the rows' own first, and how many positions a row sees there; 0: all before it."""
        windowed = [op.constants for op in self.ops if op.kind == "attention" and op.constants.get("key_set")]
        return {OWN: 0} | {some["key_set"]: some["window"] for some in windowed if some.get("window")}

    @property
    def cache_layers(self) -> tuple[tuple[int, int], ...]:
        """(kv_heads, head_dim) of the keys and values that a session holds, a layer each attention of its key sets."""
        return tuple(shape for name in self.windows for shape in self.key_sets[name])

    @cached_property
    def attention_shapes(self) -> frozenset[tuple[int, int]]:
        """(heads, head_dim) of the queries of all attention."""
        return frozenset((op.constants["heads"], op.constants["head_dim"]) for op in self.ops if op.kind == "attention")

    @property
    def num_heads(self) -> int:
        """Of queries, in the first attention; 0 without any.  The two below likewise."""
        return self._first_attention("heads")

    @property
    def num_kv_heads(self) -> int:
        """Of keys and values."""
        return self._first_attention("kv_heads")

    @property
    def head_dim(self) -> int:
        """Floats a head."""
        return self._first_attention("head_dim")

    def _first_attention(self, constant: str) -> int:
        return next((op.constants[constant] for op in self.ops if op.kind == "attention"), 0)

    @cached_property
    def read_values(self) -> frozenset[int]:
        """Values whose rows are those that the caller reads, not all of the pass."""
        found: set[int] = set()
        for op in self.ops:
            if OPS[op.kind].selects or not (OPS[op.kind].spreads or found.isdisjoint(op.inputs)):
                found.add(op.output)
        return frozenset(found)

    @cached_property
    def _readers(self) -> dict[tuple[int, int, tuple[str, ...]], dict[str, Op]]:
        return {}

    def readers(self, first: int, end: int, others: tuple[str, ...] = ()) -> dict[str, Op]:
        """The key sets that a part needs, each with the first op that does; arguments as of `part`."""
        key = first, end, others
        if key not in self._readers:
            self._readers[key] = {op.constants.get("key_set", OWN): op for op in reversed(self.part(*key))}
        return self._readers[key]

    def given(self, end: int) -> dict[str, int]:
        """The outputs but "logits", which the head keeps to itself, where layer end - 1 is the last that runs."""
        left = {self.boundaries[-1]: self.boundaries[end]}
        return {name: left.get(value, value) for name, value in self.outputs.items() if name != "logits"}

    def part(self, first: int, end: int, others: tuple[str, ...] = ()) -> tuple[Op, ...]:
        """The ops of layers [first, end): those of ENTER before layer 0, those of EXIT always.

        What leaves layer end - 1 takes the place of what leaves the last one. `others` are segments to run in place of
        all these.
        """
        segments = set(others) or {*self.layers[first:end], EXIT} | ({ENTER} if first == 0 else set())
        left = {self.boundaries[-1]: self.boundaries[end]}
        return tuple(
            replace(op, inputs=tuple(left.get(value, value) for value in op.inputs)) if op.segment == EXIT else op
            for op in self.ops
            if op.segment in segments
        )
