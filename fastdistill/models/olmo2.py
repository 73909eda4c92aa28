"""OLMo 2 (OLMo Team 2025): norms behind both halves of a layer, none before; queries and keys normed over all heads."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.decoder import Names
from fastdistill.models.described import decoder
from fastdistill.models.llama import LLAMA
from fastdistill.models.plan import Plan

MODEL_TYPES = {"olmo2": without(LLAMA, "head_dim", "mlp_bias") | {"vocab_size": 50304, "rms_norm_eps": 1e-5}}
NAMES = Names(
    attention_norm="",
    attention_post_norm="post_attention_layernorm",
    mlp_norm="",
    mlp_post_norm="post_feedforward_layernorm",
)


def plan(config: Config) -> Plan:
    """The forward pass of one OLMo 2."""
    return decoder(config, "olmo2", names=NAMES, qk_norm="row")
