"""Llama (Touvron et al. 2023) and its kin: SmolLM2, Llama 3, Mistral."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.pre_norm_decoder import Names, pre_norm_decoder
from fastdistill.models.rope import inverse_frequencies, plain_frequencies

MODEL_TYPES = ("llama", "mistral")


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of config.json that the forward pass depends on."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int  # or the sliding window, where that is shorter
    positions_source: str
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    is_causal: bool
    rope_frequencies: np.ndarray
    plain_frequencies: np.ndarray  # of rope_theta alone, before any scaling

    @classmethod
    def from_config(cls, config: Config) -> LlamaConfig:
        """Read and check; raises CheckpointError or UnsupportedError naming the key."""
        hidden = config.integer("hidden_size", minimum=1, maximum=1 << 16)
        heads = config.integer("num_attention_heads", minimum=1, maximum=1 << 10)
        kv_heads = config.integer("num_key_value_heads", minimum=1, maximum=heads, default=heads)
        if heads % kv_heads:
            config.refuse("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads = {heads}")
        head_dim = config.integer("head_dim", minimum=2, maximum=512, default=None)
        if head_dim is None:
            if hidden % heads:
                config.refuse(
                    "hidden_size", hidden, f"a multiple of num_attention_heads = {heads}, or a head_dim beside it"
                )
            head_dim = hidden // heads
        if head_dim % 2:
            config.refuse("head_dim", head_dim, "an even number")
        activation = config.string("hidden_act")
        if activation not in ("silu", "swish"):
            raise UnsupportedError(f"hidden_act {short(activation)} is not supported by the llama plan, only silu")
        positions = config.integer("max_position_embeddings", minimum=1, maximum=1 << 20)
        positions_source = "max_position_embeddings"
        window = config.integer("sliding_window", minimum=1, maximum=1 << 30, default=None)
        used = config.boolean("use_sliding_window", default=True)
        if used and window is not None and window < positions:
            # Within the window, sliding attention is plain attention.
            positions_source = (
                f"sliding_window; of its {positions} positions, those beyond the window are not supported"
            )
            positions = window
        return cls(
            vocab_size=config.integer("vocab_size", minimum=1, maximum=1 << 22),
            hidden_size=hidden,
            intermediate_size=config.integer("intermediate_size", minimum=1, maximum=1 << 18),
            num_hidden_layers=config.integer("num_hidden_layers", minimum=1, maximum=1 << 10),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            rms_norm_eps=config.number("rms_norm_eps", minimum=0.0, maximum=1.0),
            max_position_embeddings=positions,
            positions_source=positions_source,
            tie_word_embeddings=config.boolean("tie_word_embeddings"),
            attention_bias=config.boolean("attention_bias", default=False),
            mlp_bias=config.boolean("mlp_bias", default=False),
            is_causal=config.boolean("is_causal"),
            rope_frequencies=inverse_frequencies(config, head_dim),
            plain_frequencies=plain_frequencies(config, head_dim),
        )

    def decoder(self, **rest: Any) -> Plan:
        """The plan of these sizes; `rest` as in `pre_norm_decoder`: biases, and the facts that this config does not say."""
        # Files of transformers before 4.31 hold the frequencies, those of a scaled kind as they are before scaling.
        given = (self.rope_frequencies, self.plain_frequencies)
        stored = Ignored("config.json gives the rotary frequencies", given, {})
        return pre_norm_decoder(
            Names(),
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_layers=self.num_hidden_layers,
            num_heads=self.num_attention_heads,
            num_kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            epsilon=self.rms_norm_eps,
            frequencies=self.rope_frequencies,
            tied=self.tie_word_embeddings,
            untie={"tie_word_embeddings": False},
            ignored={"model.*rotary_emb.inv_freq": stored},
            max_positions=self.max_position_embeddings,
            positions_source=self.positions_source,
            **rest,
        )


def plan(config: Config) -> Plan:
    """The forward pass of one Llama."""
    c = LlamaConfig.from_config(config)
    if not c.is_causal:
        raise UnsupportedError("is_causal False is not supported by the llama plan: its rows see what is before them")
    return c.decoder(
        qkv_bias=c.attention_bias, attention_out_bias=c.attention_bias, mlp_bias=c.mlp_bias, architecture="llama"
    )
