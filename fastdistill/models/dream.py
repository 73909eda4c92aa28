"""Dream (Ye et al. 2025): masked diffusion from Qwen2's weights; row i still predicts position i + 1."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import masked
from fastdistill.models.plan import Plan
from fastdistill.models.qwen2 import QWEN2, beyond_full_layers

MODEL_TYPES = {"Dream": QWEN2 | {"head_dim": None, "is_causal": False, "mask_token_id": 151666}}


def plan(config: Config) -> Plan:
    """The forward pass of one Dream.  Its biases are Qwen2's, whatever the config says."""
    return masked(config, "dream", qkv_bias=True, slides=beyond_full_layers(config), logit_shift=1)
