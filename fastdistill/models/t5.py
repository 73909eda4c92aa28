"""T5 (Raffel et al. 2020) and its kin: FLAN-T5, mT5, and UMT5, whose layers each have numbers of their own by distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short
from fastdistill.models.described import activation_named, check_only
from fastdistill.models.distances import by_distance
from fastdistill.models.encoder_decoder import Distances, EncoderDecoder, Names, Stack, start_token
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.source import stored

T5: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "dense_act_fn": None,  # what feed_forward_proj says, in newer files
    "is_gated_act": None,
    "tie_word_embeddings": True,
    "scale_decoder_outputs": None,  # what tie_word_embeddings says, in newer files
    "decoder_start_token_id": 0,
    "is_encoder_decoder": True,  # else the class computes something else
}
MT5 = {key: value for key, value in T5.items() if key != "scale_decoder_outputs"} | {
    "vocab_size": 250112,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}
UMT5 = MT5 | {"scale_decoder_outputs": None}
MODEL_TYPES = {"t5": T5, "mt5": MT5, "umt5": UMT5}
POSITIONS = 1 << 15  # of a source and of a text: distances have no end, and somebody has to say what is too long


def names(stack: str, gated: bool) -> Names:
    """What T5 calls the modules of the encoder, or of the decoder, whose layers have a part more."""
    last = 1 if stack == "encoder" else 2
    inner = f"layer.{last}.DenseReluDense"
    return Names(
        layers=f"{stack}.block",
        attention="layer.0.SelfAttention",
        attention_norm="layer.0.layer_norm",
        cross="layer.1.EncDecAttention",
        cross_norm="layer.1.layer_norm",
        mlp_norm=f"layer.{last}.layer_norm",
        gate=f"{inner}.wi_0" if gated else "",
        up=f"{inner}.wi_1" if gated else f"{inner}.wi",
        down=f"{inner}.wo",
        q="q",
        k="k",
        v="v",
        out="o",
        norm=f"{stack}.final_layer_norm",
    )


def plan(config: Config) -> Plan:
    """The forward pass of one T5, mT5 or UMT5."""
    model_type = config.raw["model_type"]
    check_only(model_type, "is_encoder_decoder", config.boolean("is_encoder_decoder"), True)
    hidden = config.integer("d_model", minimum=1, maximum=1 << 16)
    vocab_size = config.integer("vocab_size", minimum=1, maximum=1 << 22)
    activation, gated = _feed_forward(config)
    encoder, decoder = (
        Stack(
            layers=layers,
            heads=config.integer("num_heads", minimum=1, maximum=1 << 10),
            head_dim=config.integer("d_kv", minimum=1, maximum=512),
            inner=config.integer("d_ff", minimum=1, maximum=1 << 18),
            names=names(stack, gated),
        )
        for stack, layers in _layers(config).items()
    )
    tied = config.boolean("tie_word_embeddings")
    scaled = config.boolean("scale_decoder_outputs", default=tied) if model_type != "mt5" else False
    said = {} if model_type == "mt5" else {"scale_decoder_outputs": scaled}
    unread = Ignored("attention to a source knows no distances", ())
    return EncoderDecoder(
        vocab_size=vocab_size,
        hidden_size=hidden,
        encoder=encoder,
        decoder=decoder,
        epsilon=config.number("layer_norm_epsilon", minimum=0.0, maximum=1.0),
        embedding="shared",
        tied=tied,
        activation=activation,
        layer_norm=False,
        pre_norm=True,
        bias=False,
        attention_scale=1.0,
        output_scale=hidden**-0.5 if scaled else 1.0,
        distances=_distances(config, each_layer=model_type == "umt5"),
        untie={"tie_word_embeddings": False} | said,
        ignored={"decoder.block.*.layer.1.EncDecAttention.relative_attention_bias.weight": unread},
        facts=dict(
            max_positions=POSITIONS,
            source_positions=POSITIONS,
            positions_source=f"limit of {model_type} models",
            start_token=start_token(config, vocab_size),
            architecture=model_type,
            optional={} if tied else {"lm_head.weight": {"tie_word_embeddings": True} | said},
        ),
    ).plan()


def _layers(config: Config) -> Mapping[str, int]:
    layers = config.integer("num_layers", minimum=1, maximum=1 << 10)
    return {
        "encoder": layers,
        "decoder": config.integer("num_decoder_layers", minimum=1, maximum=1 << 10, default=layers),
    }


def _feed_forward(config: Config) -> tuple[str, bool]:
    """The activation, and whether the feed-forward network has a gate; `gated-gelu` is gelu by tanh."""
    said = config.string("feed_forward_proj")
    *gate, name = said.split("-")
    if gate not in ([], ["gated"]):
        raise UnsupportedError(f"{config.source}: feed_forward_proj {short(said)} is not supported, only X and gated-X")
    name = config.string("dense_act_fn", default="gelu_new" if said == "gated-gelu" else name)
    gated = config.boolean("is_gated_act", default=bool(gate))
    return activation_named(config, "feed_forward_proj", name), gated


def _distances(config: Config, each_layer: bool) -> Distances:
    """What `EncoderDecoder.distances` is: of the first layer's table for all, or each of its own."""
    buckets = config.integer("relative_attention_num_buckets", minimum=4, maximum=1 << 16)
    farthest = config.integer("relative_attention_max_distance", minimum=1, maximum=1 << 16)
    if buckets % 2:
        config.refuse("relative_attention_num_buckets", buckets, "an even number")  # half of them lie behind a row
    if farthest <= buckets // 2:
        expected = f"more than half of relative_attention_num_buckets = {buckets}"
        config.refuse("relative_attention_max_distance", farthest, expected)
    heads = config.integer("num_heads", minimum=1, maximum=1 << 10)

    def distances(names: Names, number: int, bidirectional: bool) -> Any:
        layer = number if each_layer else 0
        name = f"{names.layers}.{layer}.{names.attention}.relative_attention_bias.weight"
        source, reach = by_distance(stored(name, (buckets, heads)), bidirectional, farthest)
        return name, source, reach

    return distances
