"""SmolLM3 (Hugging Face 2025): Llama, of which every fourth layer has no rotary positions."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config
from fastdistill.models.config_keys import without
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.llama import LLAMA
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary

MODEL_TYPES = {
    "smollm3": without(LLAMA, "head_dim")
    | {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": None,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one SmolLM3; `no_rope_layers` says 1 of layers that have them."""
    size, every = Sizes.of(config), config.integer("no_rope_layer_interval", minimum=1)
    usual = [(layer + 1) % every > 0 for layer in range(size.layers)]
    turning = config.booleans("no_rope_layers", size.layers, default=usual)
    rope = rotary(config.section("rope_parameters"), size.head_dim, size.positions, theta=2e6)
    return decoder(
        config,
        "smollm3",
        turns=lambda layer: rope if turning[layer] else None,
        slides=lambda layer: not turning[layer],
    )
