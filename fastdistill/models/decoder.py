"""The decoder that all causal families share, described once: a family says names, sizes, and which of its options it takes.

x + attention(norm x), then x + mlp(norm x), layer by layer; a norm and the head at the end.
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


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls its modules; those between `layers` and `norm` follow the layer's number. "": there is none.

    Parameters
    ----------
    embedding : str, default "model.embed_tokens"
        the table that rows of tokens come from
    positions : str, default ""
        a table of learned positions, added to it
    layers : str, default "model.layers"
        what stands before a layer's number
    attention_norm, attention_post_norm : str, optional
        before attention; behind it, before it is added
    q, k, v : str, optional
        linears that make queries, keys and values
    q_norm, k_norm : str, optional
        norms of queries and keys, where there are some
    attention_out : str, default "self_attn.o_proj"
        the linear behind attention
    mlp_norm, mlp_post_norm : str, optional
        before the feed-forward network; behind it. A parallel one without a norm of its own reads attention's
    gate, up, down : str, optional
        its linears; without a gate it is down(activation(up x))
    norm : str, default "model.norm"
        behind the last layer
    head : str, default "lm_head"
        the linear that gives logits; unused where it is the embedding
    """

    embedding: str = "model.embed_tokens"
    positions: str = ""
    layers: str = "model.layers"
    attention_norm: str = "input_layernorm"
    attention_post_norm: str = ""
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    attention_out: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    mlp_post_norm: str = ""
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    norm: str = "model.norm"
    head: str = "lm_head"


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts in place of a feed-forward network.

    Attributes
    ----------
    count : int
        how many there are
    top_k : int
        how many of them a row goes through
    inner : int
        how wide each is
    renormalised : bool
        the shares of those picked sum to 1; else they are those of a softmax over all
    shared : int
        the width of one more that every row goes through; 0: there is none
    shared_gated : bool
        that one's output is times the sigmoid of a linear
    router : str
        the linear that gives a logit an expert; its name, as the others here, behind the layer's number
    gate, up, down : str
        an expert's linears, `{}` for its number
    shared_expert : str
        the one that every row goes through
    shared_gate : str
        the linear whose sigmoid its output is times
    """

    count: int
    top_k: int
    inner: int
    renormalised: bool
    shared: int = 0
    shared_gated: bool = True
    router: str = "mlp.gate"
    gate: str = "mlp.experts.{}.gate_proj"
    up: str = "mlp.experts.{}.up_proj"
    down: str = "mlp.experts.{}.down_proj"
    shared_expert: str = "mlp.shared_expert"
    shared_gate: str = "mlp.shared_expert_gate"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer may have and its neighbours not.

    Attributes
    ----------
    rotary : Rotary | None
        its positions; None: it has none
    window : int
        keys that a row sees, counted in positions; 0: all
    experts : Experts | None
        in place of its feed-forward network
    """

    rotary: Rotary | None
    window: int = 0
    experts: Experts | None = None


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder's sizes and options.

    Attributes
    ----------
    vocab_size : int
        rows of the embedding, logits a row
    hidden_size : int
        floats a row between layers
    intermediate_size : int
        of the feed-forward network
    num_heads, num_kv_heads : int
        of queries, and of keys and values
    head_dim : int
        floats a head
    layers : tuple[Layer, ...]
        one after another
    epsilon : float
        of norms
    tied : bool
        the head is the embedding, without a bias
    names : Names
        what a checkpoint calls its modules
    activation : str
        one of `fastdistill.ops.activation.ACTIVATIONS`
    qkv_bias, attention_out_bias, mlp_bias, head_bias : bool
        which linears have biases
    layer_norm : bool
        norms take the mean away; else they are root-mean-square norms
    norm_bias : bool
        such norms have a bias
    norm_offset : float
        added to the norms' stored weights
    qk_norm : str
        of what queries and keys are normed: "" for nothing, "head", or "row"
    parallel : bool
        attention and feed-forward network read the same x, and both are added to it
    attention_scale : float, optional
        of scores; default: head_dim^-0.5
    attention_softcap, logit_softcap : float
        what bounds scores and logits; 0: nothing
    embedding_scale, residual_scale, logit_scale : float
        times the embedding's rows; what a layer adds; logits
    sources : Callable[[str], Mapping[str, Source]]
        what a layer's weights are stored in, by name, where that is no tensor of this name; of what stands before them
    untie : Mapping[str, Any], optional
        what the config says of a head that is not tied; None: such a head beside a tied embedding is an error
    ignored : Mapping[str, Ignored]
        tensors a checkpoint may hold beside those
    facts : Mapping[str, Any]
        of the plan: max_positions, architecture, causal, ...
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[Layer, ...]
    epsilon: float
    tied: bool
    names: Names = Names()
    activation: str = "silu"
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    layer_norm: bool = False
    norm_bias: bool = True
    norm_offset: float = 0.0
    qk_norm: str = ""
    parallel: bool = False
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    sources: Callable[[str], Mapping[str, Source]] = lambda at: {}
    untie: Mapping[str, Any] | None = None
    ignored: Mapping[str, Ignored] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Its plan."""
        b, names = Builder(), self.names
        x = b.scale(b.embedding(f"{names.embedding}.weight", self.vocab_size, self.hidden_size), self.embedding_scale)
        if names.positions:
            table = f"{names.positions}.weight", self.facts["max_positions"], self.hidden_size
            x = b.add(x, b.position_embedding(*table))
        b.tap(x, "embedding")
        for i, layer in enumerate(self.layers):
            at = f"{names.layers}.{i}."
            for name, source in self.sources(at).items():
                b.made_of(name, source)
            with b.layer(i, x):
                x = self._layer(b, x, at, layer)
            b.tap(x, f"layers.{i}")
        hidden = self._norm(b, b.read(x), names.norm)
        head = names.embedding if self.tied else names.head
        logits = b.head(
            b.scale(hidden, self.logit_scale),
            head,
            self.vocab_size,
            bias=self.head_bias and not self.tied,
            softcap=self.logit_softcap,
        )
        return b.plan(
            leaving=x,
            outputs={"logits": logits, "hidden": hidden},
            ignored=dict(self.ignored) | (self._tied_head() if self.tied else {}),
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            long_beyond=max((layer.rotary.original for layer in self.layers if layer.rotary is not None), default=0),
            **self.facts,
        )

    def _layer(self, b: Builder, x: int, at: str, layer: Layer) -> int:
        names = self.names
        h = self._norm(b, x, at + names.attention_norm) if names.attention_norm else x
        attended = self._attention(b, h, at, layer)
        if names.attention_post_norm:
            attended = self._norm(b, attended, at + names.attention_post_norm)
        entering, x = x, b.add(x, b.scale(attended, self.residual_scale))
        if not self.parallel:
            entering = h = x
        if names.mlp_norm:
            h = self._norm(b, entering, at + names.mlp_norm)
        made = (
            self._mlp(b, h, at, self.intermediate_size)
            if layer.experts is None
            else self._experts(b, h, at, layer.experts)
        )
        if names.mlp_post_norm:
            made = self._norm(b, made, at + names.mlp_post_norm)
        return b.add(x, b.scale(made, self.residual_scale))

    def _attention(self, b: Builder, h: int, at: str, layer: Layer) -> int:
        names, width = self.names, self.num_kv_heads * self.head_dim
        q = b.linear(h, at + names.q, self.num_heads * self.head_dim, self.qkv_bias)
        k = b.linear(h, at + names.k, width, self.qkv_bias)
        v = b.linear(h, at + names.v, width, self.qkv_bias)
        if self.qk_norm:
            q = self._norm(b, q, at + names.q_norm, self.num_heads)
            k = self._norm(b, k, at + names.k_norm, self.num_kv_heads)
        if layer.rotary is not None:
            q, k = b.rotary(q, self.head_dim, layer.rotary), b.rotary(k, self.head_dim, layer.rotary)
        scale = self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale
        h = b.attention(q, k, v, self.head_dim, scale, window=layer.window, softcap=self.attention_softcap)
        return b.linear(h, at + names.attention_out, self.hidden_size, self.attention_out_bias)

    def _mlp(self, b: Builder, h: int, at: str, inner: int) -> int:
        names = self.names
        if names.gate:
            gate = b.linear(h, at + names.gate, inner, self.mlp_bias)
            made = b.gated(gate, b.linear(h, at + names.up, inner, self.mlp_bias), self.activation)
        else:
            made = b.activation(b.linear(h, at + names.up, inner, self.mlp_bias), self.activation)
        return b.linear(made, at + names.down, self.hidden_size, self.mlp_bias)

    def _experts(self, b: Builder, h: int, at: str, experts: Experts) -> int:
        e = experts
        routes = b.route(b.linear(h, at + e.router, e.count, exact=True), e.top_k, e.renormalised)
        pairs = [at + name.format(i) for i in range(e.count) for name in (e.gate, e.up)]
        made = b.experts_up(h, routes, pairs, e.inner, e.top_k, self.activation)
        made = b.experts_down(
            made, routes, [at + e.down.format(i) for i in range(e.count)], self.hidden_size, e.inner, e.top_k
        )
        if not e.shared:
            return made
        prefix = f"{at}{e.shared_expert}."
        gate, up = (b.linear(h, prefix + name, e.shared) for name in ("gate_proj", "up_proj"))
        beside = b.linear(b.gated(gate, up, self.activation), prefix + "down_proj", self.hidden_size)
        if e.shared_gated:
            beside = b.sigmoid_mul(beside, b.linear(h, at + e.shared_gate, 1, exact=True))
        return b.add(beside, made)

    def _norm(self, b: Builder, x: int, name: str, heads: int = 0) -> int:
        """A norm of rows; of queries and keys, whose `heads` are given, as `qk_norm` says."""
        weight, bias = f"{name}.weight", f"{name}.bias"
        head_dim = self.head_dim if heads and self.qk_norm == "head" else 0
        shared = head_dim > 0 and b.is_new(weight)  # else each head has its own
        shape = (head_dim if shared else b.width(x),)
        if self.norm_offset and b.is_new(weight):
            offset = self.norm_offset
            b.made_of(weight, computed(f"{offset:+g}", lambda w: offset + w, stored(weight, shape)))
        if not self.layer_norm:
            return b.rms_norm(x, weight, self.epsilon, head_dim, shared)
        if not self.norm_bias or heads:
            b.made_of(bias, filled(0.0, shape))
        return b.layer_norm(x, weight, bias, self.epsilon, head_dim, shared)

    def _tied_head(self) -> dict[str, Ignored]:
        tie = "config.json ties the head to the embedding"
        none = np.broadcast_to(np.float32(0), (self.vocab_size,))
        return {
            f"{self.names.head}.weight": Ignored(tie, f"{self.names.embedding}.weight", self.untie),
            f"{self.names.head}.bias": Ignored(f"{tie}, without a bias", (none,)),
        }
