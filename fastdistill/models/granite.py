"""Granite (IBM 2024): Llama with multipliers of embeddings, scores, what layers add, and logits."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.described import decoder
from fastdistill.models.llama import LLAMA
from fastdistill.models.plan import Plan

_MULTIPLIERS = dict.fromkeys(
    ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"), 1.0
)
MODEL_TYPES = {"granite": without(LLAMA, "head_dim") | _MULTIPLIERS}


def plan(config: Config) -> Plan:
    """The forward pass of one Granite."""
    times = {key: config.number(key, minimum=1e-9, maximum=1e9) for key in _MULTIPLIERS}
    return decoder(
        config,
        "granite",
        embedding_scale=times["embedding_multiplier"],
        attention_scale=times["attention_multiplier"],
        residual_scale=times["residual_multiplier"],
        logit_scale=1 / times["logits_scaling"],
    )
