"""LLaDA (Nie et al. 2025): masked diffusion over a Llama block without the causal mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short
from fastdistill.models.plan import Plan
from fastdistill.models.pre_norm_decoder import Names, mask_token, pre_norm_decoder
from fastdistill.models.rope import inverse_frequencies

MODEL_TYPES = ("llada",)
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


@dataclass(frozen=True)
class LladaConfig:
    """The fields of config.json that the forward pass depends on."""

    d_model: int
    n_heads: int
    n_kv_heads: int
    n_layers: int
    mlp_hidden_size: int
    embedding_size: int  # rows of embedding and head: vocab_size, or more
    max_sequence_length: int
    rms_norm_eps: float
    weight_tying: bool
    include_bias: bool
    include_qkv_bias: bool
    mask_token_id: int
    rope_frequencies: np.ndarray

    @classmethod
    def from_config(cls, config: Config) -> LladaConfig:
        """Read and check; raises CheckpointError or UnsupportedError naming the key."""
        for key, supported in CHOICES.items():
            read = config.boolean if type(supported) is bool else config.string
            _check(key, read(key), supported)
        _check("rope_type", config.section("rope_parameters").string("rope_type"), "default")  # its code scales none
        include_bias = config.boolean("include_bias")
        _check("bias_for_layer_norm", config.boolean("bias_for_layer_norm", default=include_bias), False)
        width = config.integer("d_model", minimum=1, maximum=1 << 16)
        heads = config.integer("n_heads", minimum=1, maximum=1 << 10)
        if width % (2 * heads) or width // heads > 512:
            config.refuse("d_model", width, f"an even multiple of n_heads = {heads}, at most 512 a head")
        shared = config.boolean("multi_query_attention", default=False)
        kv_heads = config.integer("n_kv_heads", minimum=1, maximum=heads, default=1 if shared else heads)
        if heads % kv_heads:
            config.refuse("n_kv_heads", kv_heads, f"a divisor of n_heads = {heads}")
        if shared and kv_heads > 1:
            config.refuse("n_kv_heads", kv_heads, "1 with multi_query_attention")
        ratio = config.integer("mlp_ratio", minimum=1, maximum=1 << 10)
        vocab_size = config.integer("vocab_size", minimum=1, maximum=1 << 22)
        embedding_size = config.integer("embedding_size", minimum=vocab_size, maximum=1 << 22, default=vocab_size)
        return cls(
            d_model=width,
            n_heads=heads,
            n_kv_heads=kv_heads,
            n_layers=config.integer("n_layers", minimum=1, maximum=1 << 10),
            mlp_hidden_size=config.integer("mlp_hidden_size", minimum=1, maximum=1 << 18, default=ratio * width),
            embedding_size=embedding_size,
            max_sequence_length=config.integer("max_sequence_length", minimum=1, maximum=1 << 20),
            rms_norm_eps=config.number("rms_norm_eps", minimum=0.0, maximum=1.0),
            weight_tying=config.boolean("weight_tying"),
            include_bias=include_bias,
            include_qkv_bias=config.boolean("include_qkv_bias"),
            mask_token_id=mask_token(config, embedding_size),
            rope_frequencies=inverse_frequencies(config, width // heads),
        )


def plan(config: Config) -> Plan:
    """The forward pass of one LLaDA."""
    c = LladaConfig.from_config(config)
    return pre_norm_decoder(
        NAMES,
        vocab_size=c.embedding_size,
        hidden_size=c.d_model,
        intermediate_size=c.mlp_hidden_size,
        num_layers=c.n_layers,
        num_heads=c.n_heads,
        num_kv_heads=c.n_kv_heads,
        head_dim=c.d_model // c.n_heads,
        epsilon=c.rms_norm_eps,
        frequencies=c.rope_frequencies,
        tied=c.weight_tying,
        qkv_bias=c.include_bias or c.include_qkv_bias,
        attention_out_bias=c.include_bias,
        mlp_bias=c.include_bias,
        head_bias=c.include_bias,
        max_positions=c.max_sequence_length,
        positions_source="max_sequence_length",
        architecture="llada",
        causal=False,
        mask_token=c.mask_token_id,
    )


def _check(key: str, found: str | bool, supported: str | bool) -> None:
    if found != supported:
        raise UnsupportedError(f"{key} {short(found)} is not supported by the llada plan, only {short(supported)}")
