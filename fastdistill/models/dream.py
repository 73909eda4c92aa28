"""Dream (Ye et al. 2025): masked diffusion from Qwen2's weights; row i still predicts position i + 1."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.models.llama import LlamaConfig
from fastdistill.models.plan import Plan
from fastdistill.models.pre_norm_decoder import mask_token

MODEL_TYPES = ("Dream",)


def plan(config: Config) -> Plan:
    """The forward pass of one Dream.  Its config has Llama's keys; its biases are Qwen2's, whatever that says."""
    c = LlamaConfig.from_config(config)
    if c.is_causal:
        raise UnsupportedError("is_causal True is not supported by the Dream plan: its rows see each other")
    return c.decoder(
        qkv_bias=True,
        architecture="dream",
        causal=False,
        mask_token=mask_token(config, c.vocab_size),
        logit_shift=1,
    )
