"""Encoder and decoder in one model, described once: a family says names, sizes, and which of its options it takes.

The encoder's rows see each other; what it gives becomes keys and values, layer by layer, that the decoder's rows attend
to between their own attention and the feed-forward network. Norms stand before these parts, or behind what they are added to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.source import Source, computed, stored
from fastdistill.ops import CROSS, ENCODE, OWN


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls the modules of a stack; those between `layers` and `norm` follow the layer's number. "": there is none.

    Parameters
    ----------
    layers : str
        what stands before a layer's number
    attention, cross : str
        what stands before the linears of attention, and of attention to the source
    attention_norm, cross_norm, mlp_norm : str
        norms of the three parts of a layer
    up, down : str
        linears of the feed-forward network
    gate : str, default ""
        one more of them; without it the network is down(activation(up x))
    q, k, v, out : str, optional
        the linears of attention
    positions : str, default ""
        a table that is added to the embedding
    embedding_norm : str, default ""
        behind both
    norm : str, default ""
        behind the last layer
    """

    layers: str
    attention: str
    attention_norm: str
    cross: str
    cross_norm: str
    mlp_norm: str
    up: str
    down: str
    gate: str = ""
    q: str = "q_proj"
    k: str = "k_proj"
    v: str = "v_proj"
    out: str = "out_proj"
    positions: str = ""
    embedding_norm: str = ""
    norm: str = ""


Distances = Callable[[Names, int, bool], tuple[str, Source, int]]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The encoder, or the decoder.

    Attributes
    ----------
    layers : int
        how many
    heads : int
        of queries, keys and values
    head_dim : int
        floats a head
    inner : int
        of the feed-forward network
    names : Names
        what a checkpoint calls its modules
    """

    layers: int
    heads: int
    head_dim: int
    inner: int
    names: Names


@dataclass(frozen=True, kw_only=True)
class EncoderDecoder:
    """Sizes and options of both.

    Attributes
    ----------
    vocab_size : int
        rows of the embedding, logits a row
    hidden_size : int
        floats a row between layers
    encoder, decoder : Stack
        one and the other
    epsilon : float
        of norms
    embedding : str
        the table that both take their tokens' rows from, and that the head is where it is tied
    head : str, default "lm_head"
        else the linear that gives logits
    tied : bool, default True
        the head is the embedding
    head_bias : Source, optional
        added to logits; None: nothing is
    activation : str
        one of `fastdistill.ops.activation.ACTIVATIONS`
    layer_norm : bool, default True
        norms take the mean away and have a bias; else they are root-mean-square norms
    pre_norm : bool, default False
        norms stand before attention and feed-forward network; else behind the sum of what these give and what they read
    bias : bool, default True
        linears have biases
    positions : Callable[[str], Source], optional
        what a table of positions of this name is made of, where stacks have some
    embedding_scale, output_scale : float
        times the embedding's rows; what the head reads
    attention_scale : float, optional
        of scores; default: head_dim^-0.5
    distances : Distances, optional
        (names, a layer's number, whether it is the encoder's) -> numbers by distance that are added to the scores of its own
        attention: the weight's name, what it is made of, its reach; None: none are
    untie : Mapping[str, Any], optional
        what the config says of a head that is not tied; None: such a head beside a tied embedding is an error
    ignored : Mapping[str, Ignored]
        tensors a checkpoint may hold beside those
    facts : Mapping[str, Any]
        of the plan: max_positions, source_positions, start_token, architecture, ...
    """

    vocab_size: int
    hidden_size: int
    encoder: Stack
    decoder: Stack
    epsilon: float
    embedding: str
    activation: str
    head: str = "lm_head"
    tied: bool = True
    head_bias: Source | None = None
    layer_norm: bool = True
    pre_norm: bool = False
    bias: bool = True
    positions: Callable[[str], Source] | None = None
    embedding_scale: float = 1.0
    output_scale: float = 1.0
    attention_scale: float | None = None
    distances: Distances | None = None
    untie: Mapping[str, Any] | None = None
    ignored: Mapping[str, Ignored] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Its plan."""
        b, encoder, decoder = Builder(), self.encoder, self.decoder
        with b.segment(ENCODE):
            x = self._entering(b, encoder)
            for i in range(encoder.layers):
                x = self._layer(b, x, encoder, i, None)
            encoded = x = self._norm(b, x, encoder.names.norm) if encoder.names.norm else x
            held = [self._held(b, x, i) for i in range(decoder.layers)]
        x = self._entering(b, decoder)
        b.tap(x, "embedding")
        for i in range(decoder.layers):
            with b.layer(i, x):
                x = self._layer(b, x, decoder, i, held[i])
            b.tap(x, f"layers.{i}")
        hidden = b.read(x)
        if decoder.names.norm:
            hidden = self._norm(b, hidden, decoder.names.norm)
        head = self.embedding if self.tied else self.head
        if self.head_bias is not None:
            b.made_of(f"{head}.bias", self.head_bias)
        logits = b.head(b.scale(hidden, self.output_scale), head, self.vocab_size, bias=self.head_bias is not None)
        return b.plan(
            leaving=x,
            outputs={"logits": logits, "hidden": hidden, "encoded": encoded},
            ignored=dict(self.ignored) | self._same_embedding(),
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            **self.facts,
        )

    def _entering(self, b: Builder, stack: Stack) -> int:
        """What enters a stack's first layer."""
        names = stack.names
        x = b.scale(b.embedding(f"{self.embedding}.weight", self.vocab_size, self.hidden_size), self.embedding_scale)
        if self.positions is not None:
            weight = f"{names.positions}.weight"
            table = self.positions(weight)
            b.made_of(weight, table)
            x = b.add(x, b.position_embedding(weight, table.shape[0], self.hidden_size))
        return self._norm(b, x, names.embedding_norm) if names.embedding_norm else x

    def _layer(self, b: Builder, x: int, stack: Stack, number: int, held: tuple[str, int, int] | None) -> int:
        """A layer; `held` are the keys and values of the source, where it attends to one."""
        names, at = stack.names, f"{stack.names.layers}.{number}."
        key_set = ENCODE if held is None else OWN
        x = self._part(b, x, at + names.attention_norm, lambda h: self._attention(b, h, stack, number, key_set))
        if held is not None:
            x = self._part(b, x, at + names.cross_norm, lambda h: self._cross(b, h, at, stack, held))
        return self._part(b, x, at + names.mlp_norm, lambda h: self._mlp(b, h, at, stack))

    def _part(self, b: Builder, x: int, norm: str, part: Callable[[int], int]) -> int:
        if self.pre_norm:
            return b.add(x, part(self._norm(b, x, norm)))
        return self._norm(b, b.add(x, part(x)), norm)

    def _attention(self, b: Builder, h: int, stack: Stack, number: int, key_set: str) -> int:
        names, width, how = stack.names, stack.heads * stack.head_dim, dict[str, Any]()
        at = f"{names.layers}.{number}."
        if self.distances is not None:
            weight, source, reach = self.distances(names, number, key_set == ENCODE)
            if b.is_new(weight):
                b.made_of(weight, source)
            how = dict(distances=weight, reach=reach)
        q, k, v = (
            b.linear(h, f"{at}{names.attention}.{each}", width, self.bias) for each in (names.q, names.k, names.v)
        )
        h = b.attention(q, k, v, stack.head_dim, self._scale(stack), key_set=key_set, **how)
        return b.linear(h, f"{at}{names.attention}.{names.out}", self.hidden_size, self.bias)

    def _held(self, b: Builder, x: int, number: int) -> tuple[str, int, int]:
        """What a layer of the decoder attends to: keys and values of the encoder's rows."""
        stack, names = self.decoder, self.decoder.names
        at = f"{names.layers}.{number}.{names.cross}."
        k, v = (b.linear(x, at + each, stack.heads * stack.head_dim, self.bias) for each in (names.k, names.v))
        return b.store(k, v, stack.head_dim, CROSS)

    def _cross(self, b: Builder, h: int, at: str, stack: Stack, held: tuple[str, int, int]) -> int:
        names = stack.names
        q = b.linear(h, f"{at}{names.cross}.{names.q}", stack.heads * stack.head_dim, self.bias)
        h = b.cross_attention(q, held, stack.head_dim, self._scale(stack))
        return b.linear(h, f"{at}{names.cross}.{names.out}", self.hidden_size, self.bias)

    def _mlp(self, b: Builder, h: int, at: str, stack: Stack) -> int:
        names = stack.names
        if names.gate:
            gate = b.linear(h, at + names.gate, stack.inner, self.bias)
            made = b.gated(gate, b.linear(h, at + names.up, stack.inner, self.bias), self.activation)
        else:
            made = b.activation(b.linear(h, at + names.up, stack.inner, self.bias), self.activation)
        return b.linear(made, at + names.down, self.hidden_size, self.bias)

    def _scale(self, stack: Stack) -> float:
        return stack.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def _norm(self, b: Builder, x: int, name: str) -> int:
        if self.layer_norm:
            return b.layer_norm(x, f"{name}.weight", f"{name}.bias", self.epsilon)
        return b.rms_norm(x, f"{name}.weight", self.epsilon)

    def _same_embedding(self) -> dict[str, Ignored]:
        """The other names that the embedding has in files."""
        table = f"{self.embedding}.weight"
        root = self.embedding.rpartition(".")[0]
        names = [f"{root}.{stack}.embed_tokens.weight".removeprefix(".") for stack in ("encoder", "decoder")]
        same = {name: Ignored("encoder and decoder share one embedding", table) for name in names}
        if self.tied:
            same[f"{self.head}.weight"] = Ignored("config.json ties the head to the embedding", table, self.untie)
        return same


def sizes(config: Config, hidden: int, key: str, names: Names) -> Stack:
    """A stack of a config that says its sizes behind the stack's name: `encoder_layers`, `encoder_ffn_dim`, ..."""
    heads = config.integer(f"{key}_attention_heads", minimum=1, maximum=1 << 10)
    if hidden % heads or hidden // heads > 512:
        config.refuse("d_model", hidden, f"a multiple of {key}_attention_heads = {heads}, at most 512 a head")
    return Stack(
        layers=config.integer(f"{key}_layers", minimum=1, maximum=1 << 10),
        heads=heads,
        head_dim=hidden // heads,
        inner=config.integer(f"{key}_ffn_dim", minimum=1, maximum=1 << 18),
        names=names,
    )


def start_token(config: Config, vocab_size: int) -> int:
    """What a text begins with, before its first token."""
    start: int = config.integer("decoder_start_token_id", minimum=0)
    if start >= vocab_size:
        config.refuse("decoder_start_token_id", start, f"a token, below {vocab_size}")
    return start


def logits_bias(name: str, vocab_size: int) -> Source:
    """What is added to logits, of a tensor (1, vocab_size)."""
    return computed("its row", lambda bias: bias[0], stored(name, (1, vocab_size)), shape=(vocab_size,))


def sinusoids(positions: int, width: int) -> np.ndarray:
    """float32 (positions, width): sines of p / 10000^(2 i / width), and behind all of them the cosines, computed in float64."""
    angles = np.arange(positions)[:, None] / np.power(10000, 2 * (np.arange(width) // 2) / width)
    table = np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1)
    return table.astype(np.float32)
