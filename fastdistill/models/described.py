"""A decoder as most configs describe it: the keys that families share, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import short
from fastdistill.models.decoder import Decoder, Experts, Layer
from fastdistill.models.plan import Ignored, Plan
from fastdistill.models.rope import Rotary, rotary

# What configs call `fastdistill.ops.activation.ACTIVATIONS`.
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}

_EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")


def decoder(
    config: Config,
    architecture: str,
    *,
    theta: float = 10000.0,
    partial: float | None = None,
    turns: Callable[[int], Rotary | None] | None = None,
    slides: Callable[[int], bool] = lambda layer: True,
    experts: Callable[[int], Experts | None] = lambda layer: None,
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Plan:
    """The plan of what a config says with the keys that Llama's has.

    Parameters
    ----------
    config : Config
        as `completed`
    architecture : str
        the family's name
    theta, partial
        as of `rotary`
    turns : Callable[[int], Rotary | None], optional
        the rotary positions of a layer; default: those of `rope_parameters` in all
    slides : Callable[[int], bool], optional
        whether a layer's window slides, where the config has one and does not say of which layers
    experts : Callable[[int], Experts | None], optional
        of a layer
    facts : Mapping[str, Any], optional
        of the plan, which the config does not say
    **options : Any
        fields of `Decoder`, in place of what the config says

    Raises
    ------
    CheckpointError, UnsupportedError
        naming the key
    """
    size = Sizes.of(config)
    kv_heads = options.get("num_kv_heads") or config.integer(
        "num_key_value_heads", minimum=1, maximum=size.heads, default=size.heads
    )
    if size.heads % kv_heads:
        config.refuse(
            "num_key_value_heads", kv_heads, f"a divisor of {config.spelt('num_attention_heads')} = {size.heads}"
        )
    if turns is None:
        rope = rotary(config.section("rope_parameters"), size.head_dim, size.positions, theta=theta, partial=partial)
        # Files of transformers before 4.31 hold the frequencies, those of a scaled kind as they are before scaling.
        given = Ignored("config.json gives the rotary frequencies", (rope.inverse_frequencies, rope.plain), {})
        options["ignored"] = {"*rotary_emb.inv_freq": given} | options.get("ignored", {})
    if (facts or {}).get("causal", True) and not config.boolean("is_causal"):
        raise UnsupportedError(
            f"is_causal False is not supported by the {architecture} plan: its rows see what is before them"
        )
    readers: dict[str, Callable[[], Any]] = dict(
        vocab_size=lambda: config.integer("vocab_size", minimum=1, maximum=1 << 22),
        intermediate_size=lambda: config.integer(
            "intermediate_size", minimum=1, maximum=1 << 18, default=4 * size.hidden
        ),
        epsilon=lambda: config.number(_first(config, *_EPSILONS), minimum=0.0, maximum=1.0),
        tied=lambda: config.boolean("tie_word_embeddings"),
        untie=lambda: {config.spelt("tie_word_embeddings"): False},
        activation=lambda: activation(config, _first(config, "hidden_activation", "hidden_act")),
        qkv_bias=lambda: config.boolean("attention_bias", default=False),
        attention_out_bias=lambda: config.boolean("attention_bias", default=False),
        mlp_bias=lambda: config.boolean("mlp_bias", default=False),
    )
    return Decoder(
        hidden_size=size.hidden,
        num_heads=size.heads,
        head_dim=size.head_dim,
        layers=tuple(
            Layer(rotary=rope if turns is None else turns(i), window=window, experts=experts(i))
            for i, window in enumerate(windows(config, size.layers, slides))
        ),
        facts=dict(
            max_positions=size.positions,
            positions_source=config.spelt("max_position_embeddings"),
            architecture=architecture,
        )
        | dict(facts or {}),
        **{"num_kv_heads": kv_heads}
        | {name: read() for name, read in readers.items() if name not in options}
        | options,
    ).plan()


def masked(config: Config, architecture: str, *, logit_shift: int = 0, block: int = 0, **options: Any) -> Plan:
    """The same of a masked diffusion model, whose rows see each other; `logit_shift` and `block` as of `Plan`.

    Raises
    ------
    CheckpointError
        beside those, where `mask_token_id` is no token
    """
    if config.boolean("is_causal", default=False):
        raise UnsupportedError(f"is_causal True is not supported by the {architecture} plan: its rows see each other")
    vocab_size = options.get("vocab_size") or config.integer("vocab_size", minimum=1, maximum=1 << 22)
    token = config.integer("mask_token_id", minimum=0)
    if token >= vocab_size:
        config.refuse("mask_token_id", token, f"a token, below {vocab_size}")
    if any(windows(config, Sizes.of(config).layers, options.get("slides", lambda layer: True))):
        raise UnsupportedError(f"sliding_window is not supported by the {architecture} plan: its rows see each other")
    facts = dict(causal=False, mask_token=token, logit_shift=logit_shift, block=block)
    return decoder(config, architecture, facts=facts, **options)


@dataclass(frozen=True)
class Sizes:
    """What weights' shapes are made of.

    Attributes
    ----------
    hidden : int
        floats a row between layers
    layers : int
        how many
    heads : int
        of queries
    head_dim : int
        floats a head
    positions : int
        of a text
    """

    hidden: int
    layers: int
    heads: int
    head_dim: int
    positions: int

    @classmethod
    def of(cls, config: Config) -> Sizes:
        """Read and check."""
        hidden = config.integer("hidden_size", minimum=1, maximum=1 << 16)
        heads = config.integer("num_attention_heads", minimum=1, maximum=1 << 10)
        size = config.integer("head_dim", minimum=2, maximum=512, default=None)
        if size is None:
            size = hidden // heads
            if hidden % heads or size > 512:
                apart = ", or a head_dim beside it" if config.has("head_dim") else ""
                expected = f"a multiple of {config.spelt('num_attention_heads')} = {heads}, at most 512 a head{apart}"
                config.refuse("hidden_size", hidden, expected)
        if size % 2:
            config.refuse("head_dim", size, "an even number")  # its halves are rotated
        return cls(
            hidden,
            config.integer("num_hidden_layers", minimum=1, maximum=1 << 10),
            heads,
            size,
            config.integer("max_position_embeddings", minimum=1, maximum=1 << 24),
        )


def windows(config: Config, layers: int, slides: Callable[[int], bool]) -> list[int]:
    """The window of each layer, 0 for none: of `layer_types`, or of `slides` where there are none."""
    window = config.integer(
        "sliding_window", maximum=1 << 30, default=0
    )  # 0 is what classes write where it is not used
    if not config.boolean("use_sliding_window", default=True):
        window = 0
    types = config.strings("layer_types", layers, default=None)
    if types is None:
        return [window if slides(i) else 0 for i in range(layers)]
    known = {"full_attention": 0, "sliding_attention": window}
    for kind in types:
        if kind not in known:
            raise UnsupportedError(f"{config.source}: layer_types names {short(kind)}; supported: {', '.join(known)}")
    if "sliding_attention" in types and not window:
        config.refuse("sliding_window", None, "an integer, for layer_types names sliding_attention")
    return [known[kind] for kind in types]


def activation(config: Config, key: str) -> str:
    """One of `fastdistill.ops.activation.ACTIVATIONS`, by the name that a config has for it."""
    return activation_named(config, key, config.string(key))


def activation_named(config: Config, key: str, name: str) -> str:
    """The same of a name that a key says among other things."""
    if name not in _ACTIVATIONS:
        raise UnsupportedError(f"{config.source}: {key} {short(name)} is not supported, only {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def check_only(architecture: str, key: str, found: object, supported: object) -> None:
    """Raise the UnsupportedError of a key that says something else than what the plan computes."""
    if found != supported:
        raise UnsupportedError(
            f"{key} {short(found)} is not supported by the {architecture} plan, only {short(supported)}"
        )


def _first(config: Config, *keys: str) -> str:
    """The first of the keys that there is; the last one where there is none."""
    return next((key for key in keys if config.has(key)), keys[-1])
