"""The encoder that BERT and its kin share, described once: a family says names, sizes, and which of its options it takes.

Rows of a text see each other. norm(x + attention x), then norm(x + mlp x), layer by layer, as BERT has it; or with
norms in front, as decoders have them. Behind it stands nothing, a head that says what tokens masks hide, or a small
network for one row a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdistill.models.builder import Builder
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.rope import Rotary
from fastdistill.models.source import Source, computed, filled, stored

POOL = "pool"  # the segment of what a text's one row goes through: it is given as `inputs`


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls its modules; those between `layers` and `norm` follow the layer's number. "": there is none.

    Parameters
    ----------
    embedding : str, optional
        the table that rows of tokens come from
    positions : str, optional
        a table of learned positions, added to it
    types : str, optional
        a table of the parts of a text, added too: 0, and 1 for the second text of a pair
    embedding_norm : str, optional
        of their sum
    layers : str, optional
        what stands before a layer's number
    q, k, v : str, optional
        linears that make queries, keys and values
    attention_out : str, optional
        the linear behind attention
    attention_norm : str, optional
        of what attention is added to; or before it
    gate, up, down : str, optional
        linears of the feed-forward network; without a gate it is down(activation(up x))
    mlp_norm : str, optional
        likewise
    norm : str, optional
        behind the last layer
    """

    embedding: str = "embeddings.word_embeddings"
    positions: str = "embeddings.position_embeddings"
    types: str = "embeddings.token_type_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    layers: str = "encoder.layer"
    q: str = "attention.self.query"
    k: str = "attention.self.key"
    v: str = "attention.self.value"
    attention_out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    gate: str = ""
    up: str = "intermediate.dense"
    down: str = "output.dense"
    mlp_norm: str = "output.LayerNorm"
    norm: str = ""


@dataclass(frozen=True, kw_only=True)
class MaskedHead:
    """What says which tokens masks hide: the embedding, behind a linear, an activation and a norm.

    Attributes
    ----------
    dense, norm : str
        those
    bias : str
        the tensor of logits' biases; "": there is none
    dense_bias : bool
        the linear has one
    decoder : str
        a linear of its own in the embedding's place, where that is not tied
    other_bias : str
        what a file may hold beside that one's bias
    activation : str
        one of `fastdistill.ops.activation.ACTIVATIONS`
    """

    dense: str
    norm: str
    bias: str
    decoder: str
    activation: str
    dense_bias: bool = True
    other_bias: str = ""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What a text's one row goes through: a linear, an activation, perhaps a norm: the pooled row; then perhaps a classifier.

    Attributes
    ----------
    dense : str
        the linear
    activation : str
        one of `fastdistill.ops.activation.ACTIVATIONS`
    norm : str
        behind it
    dense_bias : bool
        the linear has one
    classifier : str
        the linear that gives a score a label
    """

    dense: str
    activation: str
    norm: str = ""
    dense_bias: bool = True
    classifier: str = ""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer may have and its neighbours not.

    Attributes
    ----------
    rotary : Rotary | None
        its positions; None: the embedding has them
    reach : int
        positions that a row sees to either side; 0: all
    """

    rotary: Rotary | None = None
    reach: int = 0


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """An encoder's sizes and options.

    Attributes
    ----------
    vocab_size : int
        rows of the embedding
    hidden_size : int
        floats a row between layers
    intermediate_size : int
        of the feed-forward network
    num_heads : int
        of queries, keys and values
    layers : tuple[Layer, ...]
        one after another
    epsilon : float
        of norms
    activation : str
        one of `fastdistill.ops.activation.ACTIVATIONS`
    names : Names
        what a checkpoint calls its modules
    root : str
        what stands before those names
    types : int
        rows of the table of a text's parts
    pairs : bool
        tokens have a second column: the part of the text that each belongs to; else all are of the first
    position_offset : int
        the row of the table of positions that position 0 has
    distances : tuple[Source, int] | None
        numbers that all layers add to scores by distance, and their reach: as of `Builder.attention`
    first_norm : bool
        norms in front: the first layer's attention has one too
    norms_in_front : bool
        of attention and feed-forward network
    biases, norm_biases, qkv_bias, attention_out_bias : bool
        which linears and norms have biases: all but those of attention; norms; those of attention
    head : MaskedHead | Pool | None
        what stands behind it
    untied : bool
        a masked head's linear is its own
    sources : Callable[[str], Mapping[str, Source]]
        what a layer's weights are stored in, by name, where that is no tensor of this name; of what stands before them
    ignored : Mapping[str, Ignored]
        tensors a checkpoint may hold beside those
    facts : Mapping[str, Any]
        of the plan: max_positions, architecture, ...
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    layers: tuple[Layer, ...]
    epsilon: float
    activation: str
    names: Names = Names()
    root: str = ""
    types: int = 0
    pairs: bool = False
    position_offset: int = 0
    distances: tuple[Source, int] | None = None
    first_norm: bool = True
    norms_in_front: bool = False
    biases: bool = True
    norm_biases: bool = True
    qkv_bias: bool = True
    attention_out_bias: bool = True
    head: MaskedHead | Pool | None = None
    untied: bool = False
    sources: Callable[[str], Mapping[str, Source]] = lambda at: {}
    ignored: Mapping[str, Ignored] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Its plan."""
        b, names = Builder(), self.names
        x = self._embedded(b)
        b.tap(x, "embedding")
        for i, layer in enumerate(self.layers):
            at = f"{self.root}{names.layers}.{i}."
            for name, source in self.sources(at).items():
                b.made_of(name, source)
            with b.layer(i, x):
                x = self._layer(b, x, at, layer, i == 0)
            b.tap(x, f"layers.{i}")
        hidden = self._norm(b, x, self.root + names.norm) if names.norm else x
        outputs = {"hidden": hidden}
        if isinstance(self.head, MaskedHead):
            outputs["logits"] = self._logits(b, self.head, hidden)
        elif self.head is not None:
            with b.segment(POOL):
                outputs |= self._pooled(b, self.head)
        return b.plan(
            leaving=x,
            outputs=outputs,
            ignored=self.ignored,
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            causal=False,
            **self.facts,
        )

    def _embedded(self, b: Builder) -> int:
        names, root, width = self.names, self.root, self.hidden_size
        x = b.embedding(f"{root}{names.embedding}.weight", self.vocab_size, width)
        types = f"{root}{names.types}.weight"
        if self.pairs:
            x = b.add(x, b.embedding(types, self.types, width, column=1))
        if names.positions:
            table, count = f"{root}{names.positions}.weight", self.facts["max_positions"]
            begin, end = self.position_offset, self.position_offset + count
            source = stored(table, (end, width)).rows(begin, end)
            if self.types and not self.pairs:
                first = stored(types, (self.types, width)).rows(0, 1)
                source = computed("with the first part's row", np.add, source, first)
            b.made_of(table, source)
            x = b.add(x, b.position_embedding(table, count, width))
        return self._norm(b, x, root + names.embedding_norm)

    def _layer(self, b: Builder, x: int, at: str, layer: Layer, first: bool) -> int:
        names, before = self.names, self.norms_in_front
        h = self._norm(b, x, at + names.attention_norm) if before and (self.first_norm or not first) else x
        x = b.add(x, self._attention(b, h, at, layer))
        h = x = x if before else self._norm(b, x, at + names.attention_norm)
        if before:
            h = self._norm(b, x, at + names.mlp_norm)
        x = b.add(x, self._mlp(b, h, at))
        return x if before else self._norm(b, x, at + names.mlp_norm)

    def _attention(self, b: Builder, h: int, at: str, layer: Layer) -> int:
        width, head_dim = self.hidden_size, self.hidden_size // self.num_heads
        names = self.names
        q, k, v = (b.linear(h, at + name, width, self.qkv_bias) for name in (names.q, names.k, names.v))
        if layer.rotary is not None:
            q, k = b.rotary(q, head_dim, layer.rotary), b.rotary(k, head_dim, layer.rotary)
        seen: dict[str, Any] = dict(window=layer.reach + 1, ahead=layer.reach) if layer.reach else {}
        # A masked head's rows may be kept from forward to forward; others are read in one, and no layer needs another's keys.
        if not isinstance(self.head, MaskedHead):
            seen["layer"] = 0
        if self.distances is not None:
            source, reach = self.distances
            name = f"{self.root}distances"
            if b.is_new(name):
                b.made_of(name, source)
            seen |= dict(distances=name, reach=reach)
        h = b.attention(q, k, v, head_dim, head_dim**-0.5, **seen)
        return b.linear(h, at + names.attention_out, width, self.attention_out_bias)

    def _mlp(self, b: Builder, h: int, at: str) -> int:
        names, inner = self.names, self.intermediate_size
        up = b.linear(h, at + names.up, inner, self.biases)
        if names.gate:
            made = b.gated(b.linear(h, at + names.gate, inner, self.biases), up, self.activation)
        else:
            made = b.activation(up, self.activation)
        return b.linear(made, at + names.down, self.hidden_size, self.biases)

    def _logits(self, b: Builder, head: MaskedHead, hidden: int) -> int:
        h = b.activation(b.linear(b.read(hidden), head.dense, self.hidden_size, head.dense_bias), head.activation)
        h = self._norm(b, h, head.norm)
        matrix = head.decoder if self.untied else self.root + self.names.embedding
        if head.bias:
            b.made_of(f"{matrix}.bias", stored(head.bias, (self.vocab_size,)))
        return b.head(h, matrix, self.vocab_size, bias=bool(head.bias))

    def _pooled(self, b: Builder, pool: Pool) -> dict[str, int]:
        x = b.embedding(f"{self.root}{self.names.embedding}.weight", self.vocab_size, self.hidden_size)
        x = b.activation(b.linear(x, pool.dense, self.hidden_size, pool.dense_bias), pool.activation)
        pooled = self._norm(b, x, pool.norm) if pool.norm else x
        if not pool.classifier:
            return {"pooled": pooled}
        scores = b.linear(pooled, pool.classifier, len(self.facts["labels"]), bias=True)
        return {"pooled": pooled, "scores": scores}

    def _norm(self, b: Builder, x: int, name: str) -> int:
        weight, bias = f"{name}.weight", f"{name}.bias"
        if not self.norm_biases:
            b.made_of(bias, filled(0.0, (self.hidden_size,)))
        return b.layer_norm(x, weight, bias, self.epsilon)
