"""BART (Lewis et al. 2019): an encoder and a decoder with norms behind their sums, and learned positions that begin at row 2."""

from __future__ import annotations

import math
from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.models.described import activation, check_only
from fastdistill.models.encoder_decoder import EncoderDecoder, Names, logits_bias, sizes, start_token
from fastdistill.models.plan import Plan
from fastdistill.models.source import stored

BART: dict[str, Any] = {
    "vocab_size": 50265,
    "d_model": 1024,
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "num_hidden_layers": None,  # encoder_layers by its other name
    "activation_function": "gelu",
    "scale_embedding": False,
    "tie_word_embeddings": True,
    "decoder_start_token_id": 2,
    # What the class takes no notice of, at the values of what it computes.
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "static_position_embeddings": False,
}
MODEL_TYPES = {"bart": BART}
OFFSET = 2  # rows of the tables of positions that no position has


def names(stack: str, embedding_norm: bool = True) -> Names:
    """What BART and its kin call the modules of the encoder, or of the decoder."""
    return Names(
        positions=f"model.{stack}.embed_positions",
        embedding_norm=f"model.{stack}.layernorm_embedding" if embedding_norm else "",
        layers=f"model.{stack}.layers",
        attention="self_attn",
        attention_norm="self_attn_layer_norm",
        cross="encoder_attn",
        cross_norm="encoder_attn_layer_norm",
        mlp_norm="final_layer_norm",
        up="fc1",
        down="fc2",
    )


def described(config: Config, architecture: str, embedding_norm: bool, **options: Any) -> EncoderDecoder:
    """What BART and its kin have in common; options as of `EncoderDecoder`."""
    hidden = config.integer("d_model", minimum=1, maximum=1 << 16)
    vocab_size = config.integer("vocab_size", minimum=1, maximum=1 << 22)
    positions = config.integer("max_position_embeddings", minimum=1, maximum=1 << 20)
    encoder, decoder = (sizes(config, hidden, stack, names(stack, embedding_norm)) for stack in ("encoder", "decoder"))
    layers = config.integer("num_hidden_layers", default=encoder.layers)
    check_only(architecture, "num_hidden_layers", layers, encoder.layers)
    check_only(architecture, "tie_word_embeddings", config.boolean("tie_word_embeddings"), True)
    check_only(architecture, "normalize_before", config.boolean("normalize_before"), False)
    check_only(architecture, "normalize_embedding", config.boolean("normalize_embedding"), embedding_norm)
    check_only(architecture, "add_final_layer_norm", config.boolean("add_final_layer_norm"), False)
    return EncoderDecoder(
        vocab_size=vocab_size,
        hidden_size=hidden,
        encoder=encoder,
        decoder=decoder,
        epsilon=1e-5,
        embedding="model.shared",
        activation=activation(config, "activation_function"),
        head_bias=logits_bias("final_logits_bias", vocab_size),
        embedding_scale=math.sqrt(hidden) if config.boolean("scale_embedding") else 1.0,
        facts=dict(
            max_positions=positions,
            source_positions=positions,
            start_token=start_token(config, vocab_size),
            architecture=architecture,
            optional={"final_logits_bias": 0.0},
        ),
        **options,
    )


def plan(config: Config) -> Plan:
    """The forward pass of one BART."""
    check_only("bart", "static_position_embeddings", config.boolean("static_position_embeddings"), False)
    rows = config.integer("max_position_embeddings", minimum=1, maximum=1 << 20) + OFFSET
    width = config.integer("d_model", minimum=1, maximum=1 << 16)
    return described(config, "bart", True, positions=lambda name: stored(name, (rows, width)).rows(OFFSET, rows)).plan()
