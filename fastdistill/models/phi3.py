"""Phi-3 (Abdin et al. 2024): Llama whose queries, keys and values are stored as one matrix, gate and up as another."""

from __future__ import annotations

from fastdistill.checkpoint.config import Config, Section
from fastdistill.models.config_keys import without
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.llama import MISTRAL
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary
from fastdistill.models.source import Source, stored

MODEL_TYPES = {
    "phi3": without(MISTRAL, "head_dim")
    | {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_key_value_heads": None,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "sliding_window": None,
    }
}


def plan(config: Config) -> Plan:
    """The forward pass of one Phi-3."""
    size, inner = Sizes.of(config), config.integer("intermediate_size", minimum=1)
    q, kv = (
        size.head_dim * n for n in (size.heads, config.integer("num_key_value_heads", minimum=1, default=size.heads))
    )

    def sources(at: str) -> dict[str, Source]:
        qkv = stored(f"{at}self_attn.qkv_proj.weight", (q + 2 * kv, size.hidden))
        both = stored(f"{at}mlp.gate_up_proj.weight", (2 * inner, size.hidden))
        return {
            f"{at}self_attn.q_proj.weight": qkv.rows(0, q),
            f"{at}self_attn.k_proj.weight": qkv.rows(q, q + kv),
            f"{at}self_attn.v_proj.weight": qkv.rows(q + kv, q + 2 * kv),
            f"{at}mlp.gate_proj.weight": both.rows(0, inner),
            f"{at}mlp.up_proj.weight": both.rows(inner, 2 * inner),
        }

    original = config.integer("original_max_position_embeddings", minimum=2)
    rope = dict(config.section("rope_parameters").raw)
    if rope["rope_type"] in ("su", "yarn", "longrope"):  # the first two: older names of the third
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": original}
    turns = rotary(Section(rope, config.source), size.head_dim, size.positions, partial=1.0)
    return decoder(config, "phi3", sources=sources, turns=lambda layer: turns)
