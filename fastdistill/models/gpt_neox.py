"""GPT-NeoX (Black et al. 2022) and Pythia: both halves of a layer side by side, queries, keys and values stored head by head in one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.models.decoder import Names
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.gpt2 import MASK
from fastdistill.models.plan import Plan
from fastdistill.models.source import Source, stored

MODEL_TYPES: dict[str, dict[str, Any]] = {
    "gpt_neox": {
        "vocab_size": 50432,
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "hidden_act": "gelu",
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "attention_bias": True,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000.0,
        "is_causal": True,
    }
}
NAMES = Names(
    embedding="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    q="attention.q",
    k="attention.k",
    v="attention.v",
    attention_out="attention.dense",
    gate="",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    norm="gpt_neox.final_layer_norm",
    head="embed_out",
)


def plan(config: Config) -> Plan:
    """The forward pass of one GPT-NeoX."""
    size, bias = Sizes.of(config), config.boolean("attention_bias")
    rows = np.arange(3 * size.hidden).reshape(size.heads, 3, size.head_dim)

    def sources(at: str) -> dict[str, Source]:
        shapes = {"weight": (rows.size, size.hidden)} | ({"bias": (rows.size,)} if bias else {})
        return {
            f"{at}attention.{part}.{kind}": stored(f"{at}attention.query_key_value.{kind}", shape).picked(
                rows[:, i].ravel()
            )
            for kind, shape in shapes.items()
            for i, part in enumerate("qkv")
        }

    return decoder(
        config,
        "gpt_neox",
        theta=config.number("rotary_emb_base", minimum=1.0),
        partial=config.number("rotary_pct", minimum=0.0, maximum=1.0),
        names=NAMES,
        sources=sources,
        layer_norm=True,
        parallel=config.boolean("use_parallel_residual"),
        mlp_bias=True,
        ignored={
            f"gpt_neox.layers.*.attention.{name}": MASK for name in ("bias", "masked_bias", "rotary_emb.inv_freq")
        },
    )
