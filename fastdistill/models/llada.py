"""LLaDA (Nie et al. 2025): masked diffusion over a Llama block without the causal mask."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.decoder import Names
from fastdistill.models.described import Sizes, check_only, masked
from fastdistill.models.plan import Plan

MODEL_TYPES: dict[str, dict[str, Any]] = {
    "llada": {
        "d_model": 768,
        "n_heads": 12,
        "n_kv_heads": None,
        "n_layers": 12,
        "mlp_ratio": 4,
        "mlp_hidden_size": None,
        "activation_type": "swiglu",
        "block_type": "sequential",
        "alibi": False,
        "rope": False,
        "multi_query_attention": None,
        "attention_layer_norm": False,
        "input_emb_norm": False,
        "layer_norm_type": "default",
        "layer_norm_with_affine": True,
        "rms_norm_eps": 1e-5,
        "max_sequence_length": 1024,
        "include_qkv_bias": False,
        "include_bias": False,
        "bias_for_layer_norm": None,
        "scale_logits": False,
        "vocab_size": 50257,
        "embedding_size": 50304,
        "weight_tying": True,
        # Not the class's, GPT-2's 50256: the released sampler takes this one whatever the config says.
        "mask_token_id": 126336,
    }
}
SPELLING = {
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "num_hidden_layers": "n_layers",
    "intermediate_size": "mlp_hidden_size",
    "max_position_embeddings": "max_sequence_length",
    "tie_word_embeddings": "weight_tying",
    "hidden_act": "activation_type",
    "attention_bias": "include_bias",
    "mlp_bias": "include_bias",
}
NAMES = Names(
    embedding="model.transformer.wte",
    layers="model.transformer.blocks",
    attention_norm="attn_norm",
    q="q_proj",
    k="k_proj",
    v="v_proj",
    attention_out="attn_out",
    mlp_norm="ff_norm",
    gate="ff_proj",
    up="up_proj",
    down="ff_out",
    norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
)

# Of what the config class lets one choose: what LLaDA is made of.
CHOICES: dict[str, str | bool] = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "attention_layer_norm": False,
    "rope": True,
    "alibi": False,
    "input_emb_norm": False,
    "scale_logits": False,
}


def plan(config: Config) -> Plan:
    """The forward pass of one LLaDA."""
    for key, supported in CHOICES.items():
        read = config.boolean if type(supported) is bool else config.string
        check_only("llada", key, read(key), supported)
    # Its code scales no rotary positions.
    check_only("llada", "rope_type", config.section("rope_parameters").string("rope_type"), "default")
    bias = config.boolean("include_bias")
    check_only("llada", "bias_for_layer_norm", config.boolean("bias_for_layer_norm", default=bias), False)
    config = config.respelt(**SPELLING)
    size, shared = Sizes.of(config), config.boolean("multi_query_attention", default=False)
    kv_heads = config.integer("num_key_value_heads", minimum=1, maximum=size.heads, default=1 if shared else size.heads)
    if shared and kv_heads > 1:
        config.refuse("num_key_value_heads", kv_heads, "1 with multi_query_attention")
    inner = config.integer("mlp_ratio", minimum=1, maximum=1 << 10) * size.hidden
    vocab_size = config.integer("vocab_size", minimum=1, maximum=1 << 22)
    return masked(
        config,
        "llada",
        names=NAMES,
        # Rows of embedding and head: vocab_size, or more.
        vocab_size=config.integer("embedding_size", minimum=vocab_size, maximum=1 << 22, default=vocab_size),
        num_kv_heads=kv_heads,
        intermediate_size=config.integer("intermediate_size", minimum=1, maximum=1 << 18, default=inner),
        qkv_bias=bias or config.boolean("include_qkv_bias"),
        head_bias=bias,
        untie=None,
    )
