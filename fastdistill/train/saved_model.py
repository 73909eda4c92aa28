"""A trained model as a folder: its parameters, in the tensors that its checkpoint has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from fastdistill.checkpoint import Tensor, open_checkpoint, write_checkpoint
from fastdistill.checkpoint.quantize import other_files
from fastdistill.errors import UnsupportedError
from fastdistill.models.plan import Plan
from fastdistill.models.source import Source

_LOW = 12  # bits of a place that are told at once: both halves of one below 2^36 are float32


class Whole(Protocol):
    """What has a weight's values: a Parameter, or a matrix and its pair."""

    def to_array(self) -> np.ndarray: ...


def trainable(plan: Plan) -> list[str]:
    """The weights that a checkpoint stores, and can hold once they are trained.

    Parameters
    ----------
    plan : Plan
    """
    return [name for name, weight in plan.weights.items() if weight.source.stored]


def save_model(
    plan: Plan,
    parameters: Mapping[str, Whole],
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
) -> None:
    """Write a folder that `load` and transformers read: what is trained, or stored in blocks, in float32, all else as it is stored.

    Parameters
    ----------
    plan : Plan
        of the model
    parameters : Mapping[str, Parameter]
        those that were trained; or the matrices that pairs of low rank have been added to, `LoRA.merged`
    source : str | os.PathLike[str]
        the folder that training began with: its config, tokenizer and other tensors
    folder : str | os.PathLike[str]
        the one to make, or to replace

    Raises
    ------
    CheckpointError
        where it cannot be written; what was there stays
    UnsupportedError
        for weights that no stored tensors make
    """
    with open_checkpoint(source) as checkpoint:
        config = {
            key: "float32" if key in ("dtype", "torch_dtype") else value for key, value in checkpoint.config.raw.items()
        }
        tensors = stored_tensors(plan, parameters, checkpoint.tensors)
        write_checkpoint(folder, config, tensors, other_files(checkpoint.folder), overwrite=True)


def stored_tensors(plan: Plan, parameters: Mapping[str, Whole], tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The tensors of a checkpoint of which the plan's weights are made, those of trained ones with their values.

    Parameters
    ----------
    plan : Plan
    parameters : Mapping[str, Parameter]
    tensors : Mapping[str, Tensor]
        the checkpoint's

    Raises
    ------
    UnsupportedError
        for weights that no stored tensors make
    """
    for name in plan.stored:
        users = [each for each in parameters if name in plan.weights[each].source.stored]
        stored = tensors[name]
        array = stored.to_float32().copy() if users or stored.format in ("q8", "q4") else None
        if array is None:
            yield stored
            continue
        for user in users:
            source, value = plan.weights[user].source, parameters[user].to_array()
            if source.tensor(tensors) is stored:  # as it is stored
                array = value
                continue
            places, slope, offset = _places(source, name)
            of_it = places >= 0
            array.reshape(-1)[places[of_it]] = (value[of_it] - offset[of_it]) / slope[of_it]
            _check(user, source, name, array, value)
        yield Tensor(name, "f32", array.shape, array)


def _places(source: Source, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each number of a weight: where in a stored tensor it lies, int64 of the weight's shape, -1 in none; and number = slope * stored + offset.

    Tensors that tell their places go through what makes the weight of them: rows, transposes and stacks, whatever they are.
    """
    made, shape = _maker(source, name), source.stored[name]
    offset = made(np.zeros(shape, np.float32))
    slope = made(np.ones(shape, np.float32)) - offset
    places = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    of_it = slope != 0
    high, low = (
        np.rint((made(part.astype(np.float32)) - offset) / np.where(of_it, slope, 1)).astype(np.int64)
        for part in (places >> _LOW, places & (1 << _LOW) - 1)
    )
    found = (high << _LOW) + low
    return np.where(of_it & (found >= 0) & (found < places.size), found, -1), slope, offset


def _maker(source: Source, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A stored tensor -> the weight that it and zeros make."""
    others = {
        each: Tensor(each, "f32", shape, np.zeros(shape, np.float32))
        for each, shape in source.stored.items()
        if each != name
    }
    return lambda array: source.tensor(others | {name: Tensor(name, "f32", array.shape, array)}).to_float32()


def _check(user: str, source: Source, name: str, array: np.ndarray, value: np.ndarray) -> None:
    """Refuse what does not make the trained value again, but for a rounding: a weight that repeats a stored one, say."""
    made = _maker(source, name)(array)
    empty = _maker(source, name)(np.zeros_like(array))
    near = np.abs(made - value) <= 2 * np.spacing(np.maximum(np.abs(value), 1))
    if not (near | (made == empty)).all():
        raise UnsupportedError(
            f"{user}: has been trained to what {name}, of which it is made, cannot hold: it is made of each number several times, or in "
            "another way that cannot be undone"
        )
