"""OLMoE (Muennighoff et al. 2024): Llama with experts, queries and keys normed over all heads."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.described import decoder
from fastdistill.models.experts import experts
from fastdistill.models.llama import LLAMA
from fastdistill.models.plan import Plan

MODEL_TYPES = {
    "olmoe": without(LLAMA, "head_dim", "mlp_bias")
    | {
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "num_experts": 64,
        "num_local_experts": None,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one OLMoE."""
    mixture = experts(config, "intermediate_size")
    return decoder(config, "olmoe", qk_norm="row", experts=lambda layer: mixture)
