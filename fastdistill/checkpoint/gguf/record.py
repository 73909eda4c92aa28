"""What a record of an architecture is: what llama.cpp calls the parts of a model and how it lays them out, read both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastdistill.checkpoint.gguf.moves import KEEP, STACK, Move, Sizes


class Weight(NamedTuple):
    """A tensor of a GGUF file as one of Hugging Face's, or as several.

    Attributes
    ----------
    name : str
        Hugging Face's, without `.weight`; that of one of a layer's within its layer; {} is the number of one of several
    shape : str
        the GGUF tensor's, outputs first, as names of `sizes`
    move : Move
        what lies between the two
    bias : str
        "always", or the key of config.json that says whether there is one
    only : str
        the key of config.json without which there is no such tensor; "not KEY" where it is the other way round
    """

    name: str
    shape: str
    move: Move = KEEP
    bias: str = ""
    only: str = ""


@dataclass(frozen=True)
class Architecture:
    """How an architecture of llama.cpp's becomes a model_type of Hugging Face's, and the other way round.

    Attributes
    ----------
    name : str
        llama.cpp's
    model_types : tuple[str, ...]
        Hugging Face's that it stands for; a file becomes the first
    model_class : str
        the first of config.json's `architectures`
    weights, layer : dict[str, Weight]
        by GGUF's name, without `.weight` and `blk.N.`: of the model, and of each of its layers
    layers : str
        what Hugging Face's names of a layer's tensors begin with, before the layer's number
    keys : dict[str, str]
        metadata, without the architecture -> key of config.json; "a|b" where some files say b, "a?" where it may be null;
        a number where that is what they are, always
    facts : dict[str, Any]
        what config.json has to say, a value or a function of `sizes`: written where a file becomes a folder
    sign : str
        the tensor by which a file of several records' name is of this one
    silent : dict[str, Any]
        the same, of keys that say nothing a class does not say too: compared only
    absent : dict[str, Any]
        what it means that config.json lacks a key; of facts and silent else: what they have to be; of flags: false
    rotary : bool
        whether positions rotate
    partial : str
        the key that says which part of a head they rotate; empty where it is all of it
    theta : str
        the key of the rotary base
    local_theta : str
        that of the layers with a window; empty where there is one base
    mask : bool
        whether this is a masked diffusion model, whose attention looks both ways
    """

    name: str
    model_types: tuple[str, ...]
    model_class: str
    weights: dict[str, Weight]
    layer: dict[str, Weight]
    keys: dict[str, str]
    layers: str = "model.layers"
    facts: dict[str, Any] = field(default_factory=dict)
    sign: str = ""
    silent: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, Any] = field(default_factory=dict)
    rotary: bool = True
    partial: str = ""
    theta: str = "rope_theta"
    local_theta: str = ""
    mask: bool = False

    @property
    def flags(self) -> list[str]:
        """Keys of config.json that say which tensors there are, "not KEY" too."""
        every = [*self.weights.values(), *self.layer.values()]
        said = {name: None for weight in every for name in (weight.bias, weight.only) if name not in ("", "always")}
        return [name for name in said if name.removeprefix("not ") not in self.facts]

    def config_key(self, key: str) -> str:
        """The key of config.json that these metadata become."""
        return self.keys[key].split("|")[0].rstrip("?")


class Place(NamedTuple):
    """Where one tensor lies on either side.

    Attributes
    ----------
    names : list[str]
        in the folder; several where the GGUF tensor stacks them
    name : str
        in the file
    shape : tuple[int, ...]
        in the file, outputs first
    move : Move
        what lies between the two
    """

    names: list[str]
    name: str
    shape: tuple[int, ...]
    move: Move

    @property
    def folder_shape(self) -> tuple[int, ...]:
        """Of each of the folder's."""
        return self.move.folder_shape(self.shape)


def sizes(values: Mapping[str, Any]) -> dict[str, int]:
    """Every length that a tensor may have, from metadata without the architecture's name."""
    width, heads = values["embedding_length"], values["attention.head_count"]
    kv_heads, head = values["attention.head_count_kv"], values["attention.key_length"]
    inner, experts = values["feed_forward_length"], values.get("expert_count", 0)
    return {
        "one": 1, "width": width, "vocab": values["vocab_size"], "layers": values["block_count"], "inner": inner, "heads": heads,
        "kv_heads": kv_heads, "head": head, "q": heads * head, "kv": kv_heads * head, "qkv": (heads + 2 * kv_heads) * head,
        "gate_up": 2 * inner, "positions": values["context_length"], "experts": experts,
        "expert_inner": values.get("expert_feed_forward_length", inner),
        "shared_inner": values.get("expert_shared_feed_forward_length", inner),
    }  # fmt: skip


def places(architecture: Architecture, config: Mapping[str, Any], lengths: Sizes) -> Iterator[Place]:
    """Every tensor that a config asks for."""

    def holds(condition: str) -> bool:
        negated = condition.startswith("not ")
        return bool(config.get(condition.removeprefix("not "))) is not negated

    def found(weight: Weight, name: str, prefix: str) -> Iterator[Place]:
        if weight.only and not holds(weight.only):
            return
        shape = tuple(lengths[size] for size in weight.shape.split())
        numbers = range(shape[0]) if weight.move is STACK else range(1)
        biased = weight.bias == "always" or (weight.bias and holds(weight.bias))
        for suffix, size in (("weight", shape), *((("bias", shape[:1]),) if biased else ())):
            names = [f"{prefix}{weight.name.format(number)}.{suffix}" for number in numbers]
            yield Place(names, f"{name}.{suffix}", size, weight.move)

    for name, weight in architecture.weights.items():
        yield from found(weight, name, "")
    for i in range(lengths["layers"]):
        for name, weight in architecture.layer.items():
            yield from found(weight, f"blk.{i}.{name}", f"{architecture.layers}.{i}.")
