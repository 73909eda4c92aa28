"""LLaDA-MoE (Zhu et al. 2025): masked diffusion over a Qwen-like block with experts."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import Sizes, check_only, masked
from fastdistill.models.experts import experts
from fastdistill.models.plan import Plan

# What every file says has no default: its class has numbers there that make no model.
MODEL_TYPES: dict[str, dict[str, Any]] = {
    "lladamoe": {
        "vocab_size": None,
        "hidden_size": None,
        "dense_intermediate_size": None,
        "expert_intermediate_size": None,
        "shared_expert_intermediate_size": None,
        "num_hidden_layers": None,
        "num_attention_heads": None,
        "num_key_value_heads": None,
        "num_experts": None,
        "num_local_experts": None,
        "num_experts_per_tok": None,
        "moe_layer_freq": None,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "qk_layernorm": False,
        "norm_topk_prob": False,
        "moe_router_score_function": "softmax",
        "routed_scaling_factor": 1,
        "router_num_group": -2,
        "router_topk_group": -2,
        "is_causal": False,
        "mask_token_id": 156895,  # of its sampler: files do not say it
    }
}

# Of what files can say of the router: what its code computes.
CHOICES: dict[str, bool | str | int] = {
    "norm_topk_prob": False,
    "moe_router_score_function": "softmax",
    "routed_scaling_factor": 1,
    "router_num_group": -2,
    "router_topk_group": -2,
}


def plan(config: Config) -> Plan:
    """The forward pass of one LLaDA-MoE."""
    readers: dict[type, Any] = {bool: config.boolean, str: config.string, int: config.number}
    for key, supported in CHOICES.items():
        check_only("llada_moe", key, readers[type(supported)](key), supported)
    mixture = experts(
        config,
        "expert_intermediate_size",
        shared=config.integer("shared_expert_intermediate_size", maximum=1 << 18, default=0),
        shared_gated=False,
        shared_expert="shared_expert",
    )
    sparse = config.booleans("moe_layer_freq", Sizes.of(config).layers)
    return masked(
        config,
        "llada_moe",
        intermediate_size=config.integer("dense_intermediate_size", minimum=1, maximum=1 << 18),
        qk_norm="head" if config.boolean("qk_layernorm") else "",
        experts=lambda layer: mixture if sparse[layer] else None,
    )
