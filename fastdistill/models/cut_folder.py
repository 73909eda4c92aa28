"""A model with some of its layers alone: what a shallow student begins as."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastdistill.arguments import check_integers
from fastdistill.checkpoint import Config, Tensor, open_checkpoint, write_checkpoint
from fastdistill.checkpoint.quantize import other_files
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import listed
from fastdistill.models.agreement import plan_of
from fastdistill.models.families import plan_for
from fastdistill.models.plan import Op, Plan

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers")
_LISTS = ("layer_types", "no_rope_layers", "moe_layer_freq")  # an item a layer
_NUMBERS = ("mlp_only_layers",)  # numbers of layers


def cut_folder(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    layers: Sequence[int],
    *,
    overwrite: bool = False,
) -> None:
    """Write the model of a folder with some of its layers, and everything outside layers as it is: table, last norm, head, tokenizer.

    What is written is a model like any other: its config says how many layers it has, tensors have their numbers in it.

    Parameters
    ----------
    source : str | os.PathLike[str]
        the folder to read
    destination : str | os.PathLike[str]
        the folder to make; it appears complete or not at all
    layers : sequence of int
        from 0, ascending: those that are kept
    overwrite : bool, default False
        replace the checkpoint that is there

    Raises
    ------
    ArgumentError
        for layers that the model does not have
    CheckpointError
    UnsupportedError
        where a layer would compute something else at its new place, which the family fixes: a window, say
    """
    with open_checkpoint(source) as checkpoint:
        whole = plan_of(checkpoint)
        kept = check_integers("layers", layers, 0, whole.num_layers - 1).tolist()
        if any(after <= before for before, after in pairwise(kept)):
            raise ArgumentError(f"layers must be ascending, got {kept}")
        config = _cut_config(checkpoint.config.raw, whole.num_layers, kept)
        names = _names(whole, plan_for(Config(config, str(source))), kept)

        def tensors() -> Iterator[Tensor]:
            for name, of in names.items():
                tensor = checkpoint.tensors[of]
                yield Tensor(name, tensor.format, tensor.shape, **tensor.parts)

        write_checkpoint(destination, config, tensors(), other_files(checkpoint.folder), overwrite)


def _cut_config(raw: Mapping[str, Any], count: int, kept: Sequence[int]) -> dict[str, Any]:
    """config.json of the layers kept, of so many."""
    config = dict(raw)
    for name in [name for name in _COUNTS if name in raw] or _COUNTS[:1]:
        config[name] = len(kept)
    for name in _LISTS:
        if isinstance(raw.get(name), list) and len(raw[name]) == count:
            config[name] = [raw[name][layer] for layer in kept]
    for name in _NUMBERS:
        if isinstance(raw.get(name), list):
            config[name] = [place for place, layer in enumerate(kept) if layer in raw[name]]
    return config


def _names(whole: Plan, cut: Plan, kept: Sequence[int]) -> dict[str, str]:
    """Of each tensor that the cut plan stores, the name that the whole one's has: the ops of both go side by side."""
    if len(cut.layers) != len(kept):
        raise UnsupportedError(
            f"{whole.architecture}: its config does not say how many layers there are, so none can be cut out"
        )
    of = dict(zip(cut.layers, (whole.layers[layer] for layer in kept), strict=True))
    theirs, names = _by_segment(whole), dict[str, str]()
    for segment, ops in _by_segment(cut).items():
        others = theirs[of.get(segment, segment)]
        if [_meaning(op) for op in ops] != [_meaning(op) for op in others]:
            raise UnsupportedError(
                f"layers {listed([str(layer) for layer in kept])} cannot be cut out: {of.get(segment, segment)} would compute "
                f"something else as {segment}; keep layers from the first on"
            )
        for op, other in zip(ops, others, strict=True):
            for mine, their in zip(op.weights, other.weights, strict=True):
                pairs = zip(cut.weights[mine].source.stored, whole.weights[their].source.stored, strict=True)
                names.update(pairs)
    return names


def _by_segment(plan: Plan) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {}
    for op in plan.ops:
        found.setdefault(op.segment, []).append(op)
    return found


def _meaning(op: Op) -> tuple[str, dict[str, Any]]:
    """What it computes, wherever its layer stands; arrays as lists, which compare as a whole."""
    constants = {name: value for name, value in op.constants.items() if name != "layer"}
    return op.kind, {name: np.asarray(value).tolist() for name, value in constants.items()}
