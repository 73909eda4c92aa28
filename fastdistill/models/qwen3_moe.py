"""Qwen3-MoE (Yang et al. 2025): Qwen3 with experts."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.described import decoder
from fastdistill.models.experts import experts, sparse_layers
from fastdistill.models.plan import Plan
from fastdistill.models.qwen2_moe import QWEN2_MOE

_NOT_QWEN3_MOE = ("qkv_bias", "shared_expert_intermediate_size", "max_window_layers", "layer_types")
QWEN3_MOE = without(QWEN2_MOE, *_NOT_QWEN3_MOE) | {
    "intermediate_size": 6144,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": None,
    "attention_bias": False,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
MODEL_TYPES = {"qwen3_moe": QWEN3_MOE}


def plan(config: Config) -> Plan:
    """The forward pass of one Qwen3-MoE; its windows are in all layers."""
    mixture = experts(config, "moe_intermediate_size")
    return decoder(config, "qwen3_moe", qk_norm="head", experts=sparse_layers(config, mixture))
