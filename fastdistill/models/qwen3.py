"""Qwen3 (Yang et al. 2025): Llama with norms of each head's queries and keys."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import decoder
from fastdistill.models.plan import Plan
from fastdistill.models.qwen2 import QWEN2, beyond_full_layers

QWEN3 = QWEN2 | {"head_dim": 128, "attention_bias": False}
MODEL_TYPES = {"qwen3": QWEN3}


def plan(config: Config) -> Plan:
    """The forward pass of one Qwen3."""
    return decoder(config, "qwen3", qk_norm="head", slides=beyond_full_layers(config))
