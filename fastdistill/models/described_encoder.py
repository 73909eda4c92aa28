"""An encoder as most configs describe it: the keys that families share, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import listed, short
from fastdistill.models.described import Sizes, activation, check_only
from fastdistill.models.encoder import Encoder, Layer, MaskedHead, Names, Pool
from fastdistill.models.plan import Ignored, Plan

# Keys that all encoders' configs have, as their classes have them where they are absent.
SHARED: dict[str, Any] = {
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "architectures": None,
    "id2label": None,
    "num_labels": None,
    "problem_type": None,
}
# What transformers' classes are told, not their configs: here, that a file lacks the pooler.
WITH_POOLER: dict[str, Any] = SHARED | {"add_pooling_layer": True}
PROBLEMS = "single_label_classification", "multi_label_classification", "regression"
POOLER = Ignored("this head does not read the pooler", ())
BUFFER = Ignored("config.json says how many positions there are", ())

Head = Callable[[Config], MaskedHead | Pool | None]


def encoder(
    config: Config,
    architecture: str,
    *,
    class_name: str,
    heads: Mapping[str, Head],
    root: str,
    names: Names,
    pooler: str = "",
    types: int = 0,
    ignored: Mapping[str, Ignored] | None = None,
    pooling: str = "cls",
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Plan:
    """The plan of what a config says with the keys that BERT's has.

    Parameters
    ----------
    config : Config
        as `completed`
    architecture : str
        the family's name
    class_name : str
        what the names of its classes begin with: "Bert"
    heads : Mapping[str, Head]
        what stands behind it, by the rest of a class's name: "Model", "ForMaskedLM", ...
    root : str
        what stands before the names of all but heads
    names : Names
    pooler : str, default ""
        the family's, which a file may hold though its head does not read it
    types : int, default 0
        rows of the table of a text's parts; of a masked head all are of the first
    ignored : Mapping[str, Ignored], optional
        tensors a checkpoint may hold beside those
    pooling : str, default "cls"
        as of `Plan`
    facts : Mapping[str, Any], optional
        of the plan
    **options : Any
        fields of `Encoder`, in place of what the config says

    Raises
    ------
    CheckpointError, UnsupportedError
        naming the key
    """
    for key in ("is_decoder", "add_cross_attention"):
        check_only(architecture, key, config.boolean(key), False)
    size = Sizes.of(config)
    kind = _kind(config, class_name, heads)
    head = heads[kind](config)
    optional = {}
    if isinstance(head, Pool) and not head.classifier:
        without = {"add_pooling_layer": False}
        if config.boolean("add_pooling_layer"):
            optional[f"{head.dense}.weight"] = without
        else:
            head = None
    tied = config.boolean("tie_word_embeddings")
    untied = isinstance(head, MaskedHead) and not tied
    if isinstance(head, MaskedHead) and untied and head.bias:
        head = replace(head, bias=f"{head.decoder}.bias", other_bias=head.bias)
    known = dict(ignored or {}) | {f"{root}embeddings.position_ids": BUFFER, f"{root}embeddings.token_type_ids": BUFFER}
    if pooler and not (isinstance(head, Pool) and head.dense.startswith(f"{pooler}.")):
        known[f"{pooler}.*"] = POOLER
    if isinstance(head, MaskedHead):
        known |= _tied(head, f"{root}{names.embedding}.weight", untied)
    scored = isinstance(head, Pool) and bool(head.classifier)
    labels, problem = _labels(config, scored), config.choice("problem_type", *PROBLEMS, default="")
    readers: dict[str, Callable[[], Any]] = dict(
        intermediate_size=lambda: config.integer("intermediate_size", minimum=1, maximum=1 << 18),
        layers=lambda: (Layer(),) * size.layers,
        epsilon=lambda: config.number("layer_norm_eps", minimum=0.0, maximum=1.0),
        activation=lambda: activation(config, "hidden_act"),
    )
    return Encoder(
        vocab_size=config.integer("vocab_size", minimum=1, maximum=1 << 22),
        hidden_size=size.hidden,
        num_heads=size.heads,
        head=head,
        untied=untied,
        root=root,
        names=names,
        types=types,
        pairs=types > 1 and not isinstance(head, MaskedHead),
        ignored=known,
        facts=dict(
            max_positions=options.pop("max_positions", size.positions),
            positions_source=config.spelt("max_position_embeddings"),
            architecture=architecture,
            pooling=pooling if isinstance(head, Pool) else "",
            labels=labels if scored else (),
            problem=problem if scored else "",
            optional=optional,
        )
        | dict(facts or {}),
        **{name: read() for name, read in readers.items() if name not in options} | options,
    ).plan()


def _kind(config: Config, class_name: str, heads: Mapping[str, Head]) -> str:
    """Which of a family's classes the file is of: the first that config.json names, else the bare model."""
    named = config.strings("architectures", default=None)
    if not named:
        return "Model"
    kind = named[0].removeprefix(class_name)
    if not named[0].startswith(class_name) or kind not in heads:
        known = listed(f"{class_name}{kind}" for kind in heads)
        raise UnsupportedError(
            f"architectures names {short(named[0])}, which is not supported; of this model_type: {known}"
        )
    return kind


def _labels(config: Config, scored: bool) -> tuple[str, ...]:
    """The names of what is scored: those of id2label, by number, or so many as num_labels says."""
    named, count = (
        config.section("id2label", default=None),
        config.integer("num_labels", minimum=1, maximum=1 << 16, default=2),
    )
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(count))
    wanted = [str(i) for i in range(len(named.raw))]
    if not wanted or set(named.raw) != set(wanted):
        config.refuse("id2label", named.raw, "labels numbered from 0")
    labels = tuple(str(named.raw[number]) for number in wanted)
    are_texts = all(type(label) in (str, int) for label in named.raw.values())
    if scored and (not are_texts or len(set(labels)) < len(labels)):
        config.refuse("id2label", named.raw, "labels that are text, each another one")
    return labels


def _tied(head: MaskedHead, embedding: str, untied: bool) -> dict[str, Ignored]:
    """What a masked head's file holds twice."""
    tie = Ignored("config.json ties the masked head to the embedding", embedding, {"tie_word_embeddings": False})
    if untied:
        return {head.other_bias: Ignored("an untied masked head has its linear's bias", ())} if head.other_bias else {}
    bias = Ignored("the masked head's bias is stored twice", head.bias)
    return {f"{head.decoder}.weight": tie} | (
        {} if head.bias == f"{head.decoder}.bias" else {f"{head.decoder}.bias": bias}
    )
