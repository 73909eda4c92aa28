"""Llama (Touvron et al. 2023) and its kin: SmolLM2, Llama 3, Mistral."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.described import decoder
from fastdistill.models.plan import Plan

LLAMA: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "is_causal": True,  # of every class in transformers
}
MISTRAL = without(LLAMA, "attention_bias", "mlp_bias") | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
MODEL_TYPES = {"llama": LLAMA, "mistral": MISTRAL}


def plan(config: Config) -> Plan:
    """The forward pass of one Llama."""
    return decoder(config, "llama")
