"""The pre-norm decoder that Llama and its kin share, described once: a family says names, sizes, biases, and who sees whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Ignored, Plan


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls its modules; those between `layers` and `norm` follow the layer's number.

    Parameters
    ----------
    embedding : str, default "model.embed_tokens"
        the table that rows of tokens come from
    layers : str, default "model.layers"
        what stands before a layer's number
    attention_norm : str, default "input_layernorm"
        before attention
    q, k, v : str, optional
        linears that make queries, keys and values
    attention_out : str, default "self_attn.o_proj"
        the linear behind attention
    mlp_norm : str, default "post_attention_layernorm"
        before the feed-forward network
    gate, up, down : str, optional
        its three linears
    norm : str, default "model.norm"
        behind the last layer
    head : str, default "lm_head"
        the linear that gives logits; unused where it is the embedding
    """

    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"
    attention_norm: str = "input_layernorm"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    attention_out: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    norm: str = "model.norm"
    head: str = "lm_head"


def pre_norm_decoder(
    names: Names,
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    epsilon: float,
    frequencies: np.ndarray,
    tied: bool,
    qkv_bias: bool = False,
    attention_out_bias: bool = False,
    mlp_bias: bool = False,
    head_bias: bool = False,
    untie: Mapping[str, Any] | None = None,
    ignored: Mapping[str, Ignored] | None = None,
    **facts: Any,
) -> Plan:
    """Per layer: x + attention(norm x), then x + down(silu(gate) * up) of its norm; at the end a norm and the head.

    Parameters
    ----------
    names : Names
    vocab_size : int
    hidden_size : int
    intermediate_size : int
    num_layers : int
    num_heads : int
    num_kv_heads : int
    head_dim : int
    epsilon : float
    frequencies : np.ndarray
    tied : bool
        the head is the embedding, without a bias
    qkv_bias : bool, default False
    attention_out_bias : bool, default False
    mlp_bias : bool, default False
    head_bias : bool, default False
    untie : Mapping[str, Any], optional
        what the config says of a head that is not; None: such a head beside a tied embedding is an error
    ignored : Mapping[str, Ignored], optional
        tensors a checkpoint may hold beside those
    **facts : Any
        of the plan: max_positions, architecture, causal, ...
    """
    b = Builder()
    x = b.embedding(f"{names.embedding}.weight", vocab_size, hidden_size)
    b.tap(x, "embedding")
    for i in range(num_layers):
        at = f"{names.layers}.{i}"
        with b.layer(i, x):
            h = b.rms_norm(x, f"{at}.{names.attention_norm}.weight", epsilon)
            q = b.linear(h, f"{at}.{names.q}", num_heads * head_dim, qkv_bias)
            k = b.linear(h, f"{at}.{names.k}", num_kv_heads * head_dim, qkv_bias)
            v = b.linear(h, f"{at}.{names.v}", num_kv_heads * head_dim, qkv_bias)
            q = b.rotary(q, head_dim, frequencies)
            k = b.rotary(k, head_dim, frequencies)
            h = b.attention(q, k, v, head_dim, head_dim**-0.5)
            x = b.add(x, b.linear(h, f"{at}.{names.attention_out}", hidden_size, attention_out_bias))
            h = b.rms_norm(x, f"{at}.{names.mlp_norm}.weight", epsilon)
            gate = b.linear(h, f"{at}.{names.gate}", intermediate_size, mlp_bias)
            up = b.linear(h, f"{at}.{names.up}", intermediate_size, mlp_bias)
            x = b.add(x, b.linear(b.silu_mul(gate, up), f"{at}.{names.down}", hidden_size, mlp_bias))
        b.tap(x, f"layers.{i}")
    hidden = b.rms_norm(b.read(x), f"{names.norm}.weight", epsilon)
    logits = b.head(hidden, names.embedding if tied else names.head, vocab_size, bias=head_bias and not tied)
    tie = "config.json ties the head to the embedding"
    none = np.broadcast_to(np.float32(0), (vocab_size,))
    tied_head = {
        f"{names.head}.weight": Ignored(tie, f"{names.embedding}.weight", untie),
        f"{names.head}.bias": Ignored(f"{tie}, without a bias", (none,)),
    }
    return b.plan(
        leaving=x,
        outputs={"logits": logits, "hidden": hidden},
        ignored=dict(ignored or {}) | (tied_head if tied else {}),
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        **facts,
    )


def mask_token(config: Config, vocab_size: int) -> int:
    """`mask_token_id` of a masked diffusion model; raises CheckpointError where it is no token."""
    token = config.integer("mask_token_id", minimum=0)
    if token >= vocab_size:
        config.refuse("mask_token_id", token, f"a token, below {vocab_size}")
    return token
