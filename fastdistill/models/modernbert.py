"""ModernBERT (Warner et al. 2024): norms in front, rotary positions, gates, and most layers local."""

from __future__ import annotations

from typing import Any

from fastdistill.checkpoint.config import Config, Section
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short
from fastdistill.models.described import Sizes, activation
from fastdistill.models.described_encoder import SHARED, encoder
from fastdistill.models.encoder import Layer, MaskedHead, Names, Pool
from fastdistill.models.plan import Plan
from fastdistill.models.rope import rotary
from fastdistill.models.source import Source, stored

MODERNBERT: dict[str, Any] = SHARED | {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "layer_types": None,
    "classifier_bias": False,
    "classifier_activation": "gelu",
    "classifier_pooling": "cls",
    "decoder_bias": True,
}
MODEL_TYPES = {"modernbert": MODERNBERT}
NAMES = Names(
    embedding="embeddings.tok_embeddings",
    positions="",
    types="",
    embedding_norm="embeddings.norm",
    layers="layers",
    q="attn.q",
    k="attn.k",
    v="attn.v",
    attention_out="attn.Wo",
    attention_norm="attn_norm",
    gate="mlp.gate",
    up="mlp.up",
    down="mlp.Wo",
    mlp_norm="mlp_norm",
    norm="final_norm",
)
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


def plan(config: Config) -> Plan:
    """The forward pass of one ModernBERT."""
    size, biases = Sizes.of(config), {key: config.boolean(f"{key}_bias") for key in ("attention", "mlp", "norm")}
    inner, width = config.integer("intermediate_size", minimum=1, maximum=1 << 18), size.hidden

    def sources(at: str) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for module, parts, rows, bias in (
            ("attn.Wqkv", ("attn.q", "attn.k", "attn.v"), width, biases["attention"]),
            ("mlp.Wi", ("mlp.gate", "mlp.up"), inner, biases["mlp"]),
        ):
            whole = {"weight": stored(f"{at}{module}.weight", (len(parts) * rows, width))}
            whole |= {"bias": stored(f"{at}{module}.bias", (len(parts) * rows,))} if bias else {}
            for i, part in enumerate(parts):
                found |= {f"{at}{part}.{name}": all.rows(i * rows, (i + 1) * rows) for name, all in whole.items()}
        return found

    head = dict(dense="head.dense", norm="head.norm", dense_bias=config.boolean("classifier_bias"))
    behind, decoder_bias = activation(config, "classifier_activation"), config.boolean("decoder_bias")
    return encoder(
        config,
        "modernbert",
        class_name="ModernBert",
        heads={
            "Model": lambda config: None,
            "ForSequenceClassification": lambda config: Pool(activation=behind, classifier="classifier", **head),
            "ForMaskedLM": lambda config: MaskedHead(
                bias="decoder.bias" if decoder_bias else "",
                decoder="decoder",
                activation=behind,
                **head,
            ),
        },
        root="model.",
        names=NAMES,
        sources=sources,
        layers=_layers(config, size),
        activation=activation(config, "hidden_activation"),
        epsilon=config.number("norm_eps", minimum=0.0, maximum=1.0),
        first_norm=False,
        norms_in_front=True,
        biases=biases["mlp"],
        norm_biases=biases["norm"],
        qkv_bias=biases["attention"],
        attention_out_bias=biases["attention"],
        pooling=config.choice("classifier_pooling", "cls", "mean"),
    )


def _layers(config: Config, size: Sizes) -> tuple[Layer, ...]:
    """Every so many layers one sees all, the others half of `local_attention` to either side, each kind with frequencies of its own."""
    every = config.integer("global_attn_every_n_layers", minimum=1)
    kinds = config.strings("layer_types", size.layers, default=None)
    if kinds is None:
        kinds = [_LOCAL if i % every else _GLOBAL for i in range(size.layers)]
    rope = config.section("rope_parameters")
    given = {kind: rope.section(kind, default=None) for kind in (_LOCAL, _GLOBAL)}  # as newer files have it
    layer = {
        _LOCAL: Layer(
            rotary=_rotary(config, given[_LOCAL], "local_rope_theta", size),
            reach=config.integer("local_attention", minimum=2, maximum=1 << 30) // 2,
        ),
        _GLOBAL: Layer(rotary=_rotary(config, given[_GLOBAL], "global_rope_theta", size)),
    }
    for kind in kinds:
        if kind not in layer:
            raise UnsupportedError(f"{config.source}: layer_types names {short(kind)}; supported: {', '.join(layer)}")
    return tuple(layer[kind] for kind in kinds)


def _rotary(config: Config, given: Section | None, theta: str, size: Sizes) -> Any:
    section = Section({}, "rope_parameters") if given is None else given
    return rotary(section, size.head_dim, size.positions, theta=config.number(theta, minimum=1.0, maximum=1e12))
