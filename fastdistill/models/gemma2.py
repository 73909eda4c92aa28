"""Gemma 2 (Gemma Team 2024): norms of 1 + w around both halves of a layer, scaled embeddings, soft caps, every other layer local."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.models.config_keys import without
from fastdistill.models.decoder import Names
from fastdistill.models.described import decoder
from fastdistill.models.llama import MISTRAL
from fastdistill.models.plan import Plan

GEMMA2: dict[str, Any] = without(MISTRAL, "hidden_act") | {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "layer_types": None,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
    "use_bidirectional_attention": False,
}
MODEL_TYPES = {"gemma2": GEMMA2}
NAMES = Names(
    attention_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)


def plan(config: Config) -> Plan:
    """The forward pass of one Gemma 2."""
    return gemma(config, "gemma2", slides=lambda layer: layer % 2 == 0)


def gemma(config: Config, architecture: str, **options: Any) -> Plan:
    """What all Gemmas share."""
    if config.boolean("use_bidirectional_attention"):
        raise UnsupportedError(
            f"use_bidirectional_attention True is not supported by the {architecture} plan: its rows see what is before them"
        )
    return decoder(
        config,
        architecture,
        names=NAMES,
        norm_offset=1.0,
        embedding_scale=config.integer("hidden_size", minimum=1) ** 0.5,
        attention_scale=config.number("query_pre_attn_scalar", minimum=1e-6) ** -0.5,
        attention_softcap=config.number("attn_logit_softcapping", minimum=0.0, maximum=1e6, default=0.0),
        logit_softcap=config.number("final_logit_softcapping", minimum=0.0, maximum=1e6, default=0.0),
        **options,
    )
