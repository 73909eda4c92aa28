"""Qwen2-MoE (Yang et al. 2024): Qwen2 with experts, and one that every row goes through."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import decoder
from fastdistill.models.experts import experts, sparse_layers
from fastdistill.models.plan import Plan
from fastdistill.models.qwen2 import QWEN2

QWEN2_MOE: dict[str, Any] = QWEN2 | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "qkv_bias": True,
    "num_experts": 60,
    "num_local_experts": None,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "norm_topk_prob": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": None,
}
MODEL_TYPES = {"qwen2_moe": QWEN2_MOE}


def plan(config: Config) -> Plan:
    """The forward pass of one Qwen2-MoE."""
    shared = config.integer("shared_expert_intermediate_size", minimum=1, maximum=1 << 18)
    mixture = experts(config, "moe_intermediate_size", shared=shared)
    last = config.integer("max_window_layers", minimum=0, maximum=1 << 10)
    return decoder(
        config,
        "qwen2_moe",
        qkv_bias=config.boolean("qkv_bias"),
        experts=sparse_layers(config, mixture),
        slides=lambda layer: layer % 2 == 0 and layer < last,
    )
