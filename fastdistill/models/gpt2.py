"""GPT-2 (Radford et al. 2019): learned positions, and linears that are stored as (inputs, outputs)."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.models.decoder import Names
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.source import Source, stored

GPT2: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "is_causal": True,
}
MODEL_TYPES = {"gpt2": GPT2}
NAMES = Names(
    embedding="transformer.wte",
    positions="transformer.wpe",
    layers="transformer.h",
    attention_norm="ln_1",
    q="attn.q",
    k="attn.k",
    v="attn.v",
    attention_out="attn.c_proj",
    mlp_norm="ln_2",
    gate="",
    up="mlp.c_fc",
    down="mlp.c_proj",
    norm="transformer.ln_f",
)
SPELLING = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
    "hidden_act": "activation_function",
}
MASK = Ignored("a causal mask", ())  # that old files hold


def plan(config: Config) -> Plan:
    """The forward pass of one GPT-2."""
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if config.boolean(key):
            raise UnsupportedError(f"{key} True is not supported by the gpt2 plan")
    config = config.respelt(**SPELLING)
    width = Sizes.of(config).hidden
    inner = config.integer("intermediate_size", minimum=1, default=4 * width)

    def sources(at: str) -> dict[str, Source]:
        weight = stored(f"{at}attn.c_attn.weight", (width, 3 * width)).transposed()
        bias = stored(f"{at}attn.c_attn.bias", (3 * width,))
        parts = {f"{at}attn.{part}": (i * width, (i + 1) * width) for i, part in enumerate("qkv")}
        sizes = {"attn.c_proj": (width, width), "mlp.c_fc": (width, inner), "mlp.c_proj": (inner, width)}
        return (
            {f"{part}.weight": weight.rows(*rows) for part, rows in parts.items()}
            | {f"{part}.bias": bias.rows(*rows) for part, rows in parts.items()}
            | {f"{at}{name}.weight": stored(f"{at}{name}.weight", size).transposed() for name, size in sizes.items()}
        )

    return decoder(
        config,
        "gpt2",
        names=NAMES,
        sources=sources,
        turns=lambda layer: None,
        layer_norm=True,
        attention_scale=None if config.boolean("scale_attn_weights") else 1.0,
        qkv_bias=True,
        attention_out_bias=True,
        mlp_bias=True,
        ignored={f"transformer.h.*.attn.{name}": MASK for name in ("bias", "masked_bias")},
    )
