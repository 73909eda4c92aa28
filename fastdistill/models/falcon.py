"""Falcon (Almazrouei et al. 2023): both halves of a layer side by side, queries, keys and values stored group by group in one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.models.decoder import Names
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.plan import Plan
from fastdistill.models.source import Source, stored

MODEL_TYPES: dict[str, dict[str, Any]] = {
    "falcon": {
        "vocab_size": 65024,
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "num_kv_heads": None,
        "num_ln_in_parallel_attn": None,
        "layer_norm_epsilon": 1e-5,
        "alibi": False,
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "max_position_embeddings": 2048,
        "ffn_hidden_size": None,
        "activation": "gelu",
        "tie_word_embeddings": True,
        "is_causal": True,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one Falcon.  The older ones have one key head, or as many as of queries."""
    if config.boolean("alibi"):
        raise UnsupportedError("alibi True is not supported by the falcon plan, only rotary positions")
    config = config.respelt(
        num_key_value_heads="num_kv_heads", intermediate_size="ffn_hidden_size", hidden_act="activation"
    )
    size, newer = Sizes.of(config), config.boolean("new_decoder_architecture")
    parallel, bias = config.boolean("parallel_attn"), config.boolean("bias")
    norms = config.integer("num_ln_in_parallel_attn", minimum=1, maximum=2, default=2 if newer else 1)
    if newer and not parallel:
        raise UnsupportedError(
            "parallel_attn False beside new_decoder_architecture is not supported by the falcon plan"
        )
    kv_heads = config.integer("num_key_value_heads", minimum=1, maximum=size.heads, default=size.heads)
    if not newer:
        kv_heads = 1 if config.boolean("multi_query") else size.heads
    group = size.heads // kv_heads
    rows = np.arange((group + 2) * kv_heads * size.head_dim).reshape(kv_heads, group + 2, size.head_dim)
    parts = {"q": rows[:, :group], "k": rows[:, group], "v": rows[:, group + 1]}

    def sources(at: str) -> dict[str, Source]:
        shapes = {"weight": (rows.size, size.hidden)} | ({"bias": (rows.size,)} if bias else {})
        return {
            f"{at}self_attention.{part}.{kind}": stored(f"{at}self_attention.query_key_value.{kind}", shape).picked(
                picked.ravel()
            )
            for kind, shape in shapes.items()
            for part, picked in parts.items()
        }

    two = newer and norms == 2
    return decoder(
        config,
        "falcon",
        num_kv_heads=kv_heads,
        names=Names(
            embedding="transformer.word_embeddings",
            layers="transformer.h",
            attention_norm="ln_attn" if two else "input_layernorm",
            q="self_attention.q",
            k="self_attention.k",
            v="self_attention.v",
            attention_out="self_attention.dense",
            mlp_norm="ln_mlp" if two else "" if parallel else "post_attention_layernorm",
            gate="",
            up="mlp.dense_h_to_4h",
            down="mlp.dense_4h_to_h",
            norm="transformer.ln_f",
        ),
        sources=sources,
        layer_norm=True,
        parallel=parallel,
        qkv_bias=bias,
        attention_out_bias=bias,
        mlp_bias=bias,
    )
