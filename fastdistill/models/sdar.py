"""SDAR (Cheng et al. 2025): block diffusion from Qwen3's weights, or Qwen3-MoE's."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import masked
from fastdistill.models.experts import experts, sparse_layers
from fastdistill.models.plan import Plan
from fastdistill.models.qwen2 import beyond_full_layers
from fastdistill.models.qwen3 import QWEN3
from fastdistill.models.qwen3_moe import QWEN3_MOE

_SDAR = {"is_causal": False, "block_size": 4, "mask_token_id": 151669}
MODEL_TYPES = {"sdar": QWEN3 | _SDAR, "sdar_moe": QWEN3_MOE | _SDAR}


def plan(config: Config) -> Plan:
    """The forward pass of one SDAR."""
    block = config.integer("block_size", minimum=1, maximum=1 << 12)
    if config.has("num_experts"):
        sparse = sparse_layers(config, experts(config, "moe_intermediate_size"))
        return masked(config, "sdar_moe", block=block, qk_norm="head", experts=sparse)
    return masked(config, "sdar", block=block, qk_norm="head", slides=beyond_full_layers(config))
