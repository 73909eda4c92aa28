"""Gemma 3's text model (Gemma Team 2025): Gemma 2 with norms of each head's queries and keys, and two rotary bases."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config, Section
from fastdistill.models.config_keys import without
from fastdistill.models.described import Sizes, windows
from fastdistill.models.gemma2 import GEMMA2, gemma
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary

MODEL_TYPES = {
    "gemma3_text": without(GEMMA2, "attn_logit_softcapping")
    | {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "final_logit_softcapping": None,
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one Gemma 3.  Local layers have a rotary base of their own, and are not scaled."""
    pattern = config.integer("sliding_window_pattern", minimum=1)
    size = Sizes.of(config)
    wide = config.section("rope_parameters")
    near = wide.section("sliding_attention", default=Section({}, config.source))
    wide = wide.section("full_attention", default=wide)
    base = config.number("rope_local_base_freq", minimum=1.0, maximum=1e12)
    everywhere = rotary(wide, size.head_dim, size.positions, theta=1e6)
    locally = rotary(near, size.head_dim, size.positions, theta=base)

    def slides(layer: int) -> bool:
        return (layer + 1) % pattern > 0

    local = windows(config, size.layers, slides)
    return gemma(
        config,
        "gemma3",
        qk_norm="head",
        slides=slides,
        turns=lambda layer: locally if local[layer] else everywhere,
    )
