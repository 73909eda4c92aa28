"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on queries, keys and values."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.described import decoder
from fastdistill.models.llama import MISTRAL
from fastdistill.models.plan import Plan

QWEN2: dict[str, Any] = without(MISTRAL, "head_dim") | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "layer_types": None,
}
MODEL_TYPES = {"qwen2": QWEN2}


def plan(config: Config) -> Plan:
    """The forward pass of one Qwen2."""
    return decoder(config, "qwen2", qkv_bias=True, slides=beyond_full_layers(config))


def beyond_full_layers(config: Config) -> Any:
    """Windows slide from layer `max_window_layers` on."""
    full = config.integer("max_window_layers", minimum=0, maximum=1 << 10)
    return lambda layer: layer >= full
