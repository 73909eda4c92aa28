"""A GGUF file's metadata as config.json, and config.json as metadata: whichever the record of the architecture says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from fastdistill.checkpoint.config import Config
from fastdistill.checkpoint.folder import check_tensors
from fastdistill.checkpoint.gguf.architectures import ARCHITECTURES
from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.checkpoint.gguf.record import Architecture, Place, places, sizes
from fastdistill.checkpoint.gguf.rotary import ROTARY_KEYS, read_rotary
from fastdistill.checkpoint.gguf.tokenizer import special_ids
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.messages import short

# What says nothing that is not said elsewhere, or is compared with that; StableLM's residuals its tensors say.
_KNOWN = {
    "vocab_size", "attention.head_count_kv", "attention.key_length", "attention.value_length", "tensor_data_layout",
    "use_parallel_residual",
}  # fmt: skip
_COUNT = re.compile(r"(_length|count|count_kv|_window)$")
_MOST = 1 << 16  # three times what the largest models have
_SAME_ACTIVATION = {"swish": "silu"}


class Model(NamedTuple):
    """What a GGUF file holds, or is to hold.

    Attributes
    ----------
    architecture : Architecture
        its record
    config : dict[str, Any]
        config.json
    sizes : dict[str, int]
        every length that its tensors have
    places : list[Place]
        its tensors, on either side
    """

    architecture: Architecture
    config: dict[str, Any]
    sizes: dict[str, int]
    places: list[Place]


def file_model(file: GgufFile) -> Model:
    """The model of a file, its config in the form of Hugging Face's class, checked against the tensors' names and shapes.

    Raises
    ------
    CheckpointError
        for metadata that are missing or impossible, and tensors that do not agree with them
    UnsupportedError
        for an architecture that has no record, and metadata that change the arithmetic and have no key in config.json
    """
    architecture = _architecture_of(file)
    values = _read_values(file, architecture)
    lengths = _sizes(file.name, values)
    config: dict[str, Any] = {"architectures": [architecture.model_class], "model_type": architecture.model_types[0]}
    config |= {
        architecture.config_key(key): values[key] for key, name in architecture.keys.items() if not name.isdigit()
    }
    config["vocab_size"] = lengths["vocab"]
    for flag in architecture.flags:
        key, negated = flag.removeprefix("not "), flag.startswith("not ")
        config[key] = _is_there(file, architecture, flag) is not negated
    config |= {key: _fact(fact, lengths) for key, fact in architecture.facts.items()}
    found, used = read_rotary(file, architecture, lengths) if architecture.rotary else ({}, set())
    if architecture.mask:
        # LLaDA's released files say nothing of it, and its sampler takes this one.
        usual = 126336 if architecture.name == "llada" else ...
        config["mask_token_id"] = file.get("tokenizer.ggml.mask_token_id", int, usual)
    expected = list(places(architecture, config, lengths))
    for place in expected:
        tensor = file.tensors.get(place.name)
        if tensor is not None and (1, *tensor.shape) == place.shape:  # to llama.cpp a matrix of one row is a vector
            file.tensors[place.name] = replace(tensor, shape=place.shape)
    check_against(file.name, file.tensors, {place.name: place.shape for place in expected}, used)
    return Model(architecture, config | found | special_ids(file), lengths, expected)


def check_against(
    name: str, tensors: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], ignored: set[str]
) -> None:
    """`check_tensors`, its error named after the file or folder."""
    try:
        check_tensors(tensors, expected, ignored)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None


# --- a file's metadata ------------------------------------------------------------------------------------------------


def _architecture_of(file: GgufFile) -> Architecture:
    name = file.get("general.architecture", str)
    named = [architecture for architecture in ARCHITECTURES if architecture.name == name]
    if not named:
        known = ", ".join(dict.fromkeys(architecture.name for architecture in ARCHITECTURES))
        raise UnsupportedError(f"{file.name}: architecture {short(name)} cannot be converted; {known} can")
    return next(
        (found for found in named if found.sign in file.tensors), next(found for found in named if not found.sign)
    )


def _read_values(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """The metadata that have keys in config.json and those that give sizes, checked, by name without the architecture's."""
    prefix = architecture.name + "."
    known = _KNOWN | architecture.keys.keys() | (ROTARY_KEYS if architecture.rotary else set())
    for name, value in file.metadata.items():
        key = name.removeprefix(prefix)
        if not name.startswith(prefix) or key in known or (key in ("expert_count", "expert_used_count") and value == 0):
            continue
        if key == "attention.causal" and value is not architecture.mask:
            continue
        raise UnsupportedError(f"{file.name}: metadata {short(name)} cannot be converted")

    def size(key: str, default: Any = ...) -> int:
        return file.size_of(prefix + key, default)

    values: dict[str, Any] = {}
    for key, name in architecture.keys.items():
        # The inner width of a layer may be left out by a folder alone.
        default = None if name.endswith("?") and key != "feed_forward_length" else ...
        if key == "attention.sliding_window" and default is None:
            values[key] = file.get(prefix + key, int, None) or None  # 0: none
        elif key in ("attention.head_count_kv", "attention.key_length"):
            continue
        elif _COUNT.search(key):
            values[key] = size(key, default)
        elif key == "use_parallel_residual":
            values[key] = file.get(prefix + key, bool)
        else:
            values[key] = file.positive(prefix + key, default)
    width, heads = values["embedding_length"], values["attention.head_count"]
    said = architecture.keys.get("attention.head_count_kv", str(heads))
    kv_heads = size("attention.head_count_kv", int(said) if said.isdigit() else heads)
    head = size("attention.key_length", max(1, width // heads))
    if size("attention.value_length", head) != head or (
        head * heads != width and "attention.key_length" not in architecture.keys
    ):
        raise UnsupportedError(f"{file.name}: a model whose key, value and rotary widths differ cannot be converted")
    if said.isdigit() and kv_heads != int(said):
        raise UnsupportedError(f"{file.name}: {architecture.name} of {heads} heads with {kv_heads} key and value heads")
    if heads % kv_heads or (head % 2 and architecture.rotary):
        raise CheckpointError(
            f"{file.name}: {heads} heads of width {head} over {kv_heads} key and value heads; expected an "
            "even width, and heads in equal groups"
        )
    if values["block_count"] > len(file.tensors):
        raise CheckpointError(
            f"{file.name}: {prefix}block_count is {values['block_count']}, but there are {len(file.tensors)} tensors"
        )
    embedding = file.tensors.get("token_embd.weight")
    values["vocab_size"] = size("vocab_size", embedding.shape[0] if embedding else 1)
    return values | {"attention.head_count_kv": kv_heads, "attention.key_length": head}


def _is_there(file: GgufFile, architecture: Architecture, flag: str) -> bool:
    """Whether the file has a tensor that hangs on this flag."""
    for words, pattern in ((architecture.weights, "{}"), (architecture.layer, r"blk\.\d+\.{}")):
        for name, weight in words.items():
            for suffix, condition in (("weight", weight.only), ("bias", weight.bias)):
                full = re.compile(pattern.format(name) + rf"\.{suffix}")
                if condition == flag and any(full.fullmatch(found) for found in file.tensors):
                    return True
    return False


def _sizes(name: str, values: Mapping[str, Any]) -> dict[str, int]:
    """`sizes`, of a model that may have as many tensors as that says: names are made of each."""
    lengths = sizes(values)
    most = lengths["layers"] * max(lengths["heads"], lengths["experts"], 1)
    if most > _MOST:
        raise CheckpointError(
            f"{name}: has {lengths['layers']} layers (block_count) of {lengths['heads']} heads and "
            f"{lengths['experts']} experts (expert_count); expected at most {_MOST} of them in all"
        )
    return lengths


def _fact(fact: Any, lengths: Mapping[str, int]) -> Any:
    return fact(lengths) if callable(fact) else fact


# --- a folder's config ------------------------------------------------------------------------------------------------


def folder_model(config: Config) -> tuple[Model, dict[str, Any]]:
    """The model of a config.json as llama.cpp computes it, and the metadata that say so, without those of its rotary positions.

    Raises
    ------
    CheckpointError
        for keys that are missing or impossible
    UnsupportedError
        for a model_type that has no record, and keys that llama.cpp computes otherwise
    """
    architecture = architecture_for(config)
    values = {key: _config_value(config, key, name, architecture.absent) for key, name in architecture.keys.items()}
    width, heads = values["embedding_length"], values["attention.head_count"]
    values["attention.head_count_kv"] = values.get("attention.head_count_kv") or heads
    head = values.get("attention.key_length") or max(1, width // heads)
    values["attention.key_length"] = values["attention.value_length"] = head
    if "feed_forward_length" in values and values["feed_forward_length"] is None:
        values["feed_forward_length"] = 4 * width  # GPT-2's
    values["vocab_size"] = config.integer("vocab_size", minimum=1)
    if "attention.sliding_window" not in architecture.keys and config.boolean("use_sliding_window", default=True):
        # Within a window sliding attention is plain attention, which is all that llama.cpp has for this architecture.
        window = config.integer("sliding_window", default=None) or values["context_length"]
        values["context_length"] = min(values["context_length"], window)
    elif architecture.keys.get("attention.sliding_window", "").endswith("?"):
        values["attention.sliding_window"] = values["attention.sliding_window"] or 0
    lengths = _sizes(config.source, values)
    found = dict(config.raw)
    for key, fact in (architecture.facts | architecture.silent | {"is_causal": not architecture.mask}).items():
        expected, value = _fact(fact, lengths), config.raw.get(key)
        value = architecture.absent.get(key, expected) if value is None else value
        if (_SAME_ACTIVATION.get(value, value) if isinstance(value, str) else value) != expected:
            raise UnsupportedError(
                f"{config.source}: {key} is {short(value)}; llama.cpp's {architecture.name} has {short(expected)}, always"
            )
        found[key] = expected
    for flag in architecture.flags:
        key = flag.removeprefix("not ")
        found[key] = config.boolean(key, default=architecture.absent.get(key, False))
    model = Model(architecture, found, lengths, list(places(architecture, found, lengths)))
    return model, {key: value for key, value in values.items() if value is not None}


def architecture_for(config: Config) -> Architecture:
    """The architecture of llama.cpp's that computes a model_type."""
    model_type = config.string("model_type")
    named = [architecture for architecture in ARCHITECTURES if model_type in architecture.model_types]
    if named:  # of several that whose facts the config has

        def differing(architecture: Architecture) -> int:
            facts = {key: architecture.absent.get(key, fact) for key, fact in architecture.facts.items()}
            return sum(config.raw.get(key, absent) != architecture.facts[key] for key, absent in facts.items())

        return min(named, key=differing)
    known = ", ".join(name for architecture in ARCHITECTURES for name in architecture.model_types)
    raise UnsupportedError(f"{config.source}: model_type {short(model_type)} cannot be written as GGUF; {known} can")


def _config_value(config: Config, key: str, names: str, absent: Mapping[str, Any]) -> Any:
    """What config.json says where metadata have `key`: None where it may say nothing."""
    options, default = names.rstrip("?").split("|"), None if names.endswith("?") else ...
    name = next((option for option in options if config.raw.get(option) is not None), options[0])
    default = absent.get(name, default)
    if names.isdigit():
        return int(names)
    if key == "attention.head_count_kv":
        default = None
    if key == "use_parallel_residual":
        return config.boolean(name)
    if _COUNT.search(key):
        return config.integer(name, minimum=0 if default is None else 1, default=default)
    return config.number(name, minimum=1e-38, maximum=1e38, default=default)
