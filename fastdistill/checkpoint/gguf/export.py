"""A checkpoint folder to a GGUF file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import check_callable, check_choice, check_flag, check_instance, check_path
from fastdistill.checkpoint.folder import Checkpoint
from fastdistill.checkpoint.gguf.config import Model, check_against, folder_model
from fastdistill.checkpoint.gguf.moves import STACK
from fastdistill.checkpoint.gguf.reader import BLOCKS, F32
from fastdistill.checkpoint.gguf.record import Place
from fastdistill.checkpoint.gguf.rotary import write_rotary
from fastdistill.checkpoint.gguf.tensors import file_bytes, file_type
from fastdistill.checkpoint.gguf.tokenizer_metadata import tokenizer_metadata
from fastdistill.checkpoint.gguf.writer import Described, write_gguf
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import FORMATS, Tensor
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import whole_file
from fastdistill.messages import short

# What old files hold beside their weights: masks, and rotary frequencies, which the config gives.
_IGNORED = {"*.rotary_emb.inv_freq", "*.attn.bias", "*.attn.masked_bias", "*.attention.bias", "*.attention.masked_bias"}


def export_checkpoint(
    checkpoint: Checkpoint,
    destination: str | os.PathLike[str],
    format: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an open folder as `fastdistill.models.export_folder` does, whether or not a model can be made of it.

    Parameters
    ----------
    checkpoint : Checkpoint
        an open folder of one of the model_types of ARCHITECTURES
    destination : str | os.PathLike[str]
        the GGUF file to make, NAME.gguf; it appears complete or not at all
    format : str, optional
        None keeps q8 (as Q8_0), q4 (as Q4_1), f32, f16 and bf16 as they are; else every matrix is converted to it
    progress : Callable[[int, int], None], optional
        called with (bytes done, bytes in all) of the file's tensors
    overwrite : bool, default False
        replace the file that is there

    Raises
    ------
    CheckpointError
        for tensors that do not agree with the config and a destination that is there
    UnsupportedError
        for a model or tokenizer that llama.cpp has no equal for
    ArgumentError
        for an unknown format, and a destination that is not called so
    """
    check_instance("checkpoint", checkpoint, Checkpoint)
    path = Path(os.path.realpath(check_path("destination", destination)))
    if path.suffix != ".gguf":
        raise ArgumentError(f"destination must be a name that ends in .gguf, got {short(str(destination))}")
    if format is not None:
        check_choice("format", format, FORMATS)
    check_flag("overwrite", overwrite)
    if progress is not None:
        check_callable("progress", progress)
    if os.path.lexists(path) and not overwrite:
        raise CheckpointError(
            f"{path}: is there already; choose another name, or overwrite it (overwrite=True, --overwrite)"
        )
    model, values = folder_model(checkpoint.config)
    stored = _stored(checkpoint, model)
    extra: dict[str, np.ndarray] = {}
    if model.architecture.rotary:
        found, extra = write_rotary(checkpoint.config, model.architecture, model.sizes)
        values |= found
    metadata = _metadata(checkpoint, model, values)
    described = [Described(name, F32, data.shape, data.nbytes) for name, data in extra.items()]
    described += [_described(place, stored, format) for place in model.places]
    total, done = sum(tensor.size for tensor in described), 0

    def pieces() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal done
        yield from ((name, np.ascontiguousarray(data, "<f4")) for name, data in extra.items())
        done = sum(data.nbytes for data in extra.values())
        kinds = {tensor.name: tensor.type for tensor in described}
        for place in model.places:
            for name in place.names:
                tensor = place.move.to_file(stored[name], model.sizes)
                if format is not None and len(tensor.shape) == 2:
                    tensor = quantize_tensor(tensor, format)
                data = file_bytes(tensor, kinds[place.name])
                yield place.name, data
                done += data.nbytes
                if progress is not None:
                    progress(done, total)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error
    with whole_file(path) as made:
        write_gguf(made, metadata, described, pieces())


def _stored(checkpoint: Checkpoint, model: Model) -> Mapping[str, Tensor]:
    """The folder's tensors under the names that the model has for them, checked.

    GPT-2's first files, and those of a model without its head, leave out what all but the head's names begin with.
    """
    expected = {name: place.folder_shape for place in model.places for name in place.names}
    root = model.architecture.layers.partition(".")[0] + "."
    tensors = {
        root + name if name not in expected and root + name in expected else name: tensor
        for name, tensor in checkpoint.tensors.items()
    }
    head, embedding = (f"{model.architecture.weights[name].name}.weight" for name in ("output", "token_embd"))
    check_against(str(checkpoint.folder), tensors, expected, _IGNORED | {head})
    if head in tensors and head not in expected and not _equal(tensors[head], tensors[embedding]):
        raise CheckpointError(
            f"{checkpoint.folder}: config.json says that the embedding is the head, but it holds another {head}"
        )
    return tensors


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and all(
        np.array_equal(one.rows(rows).to_float32(), other.rows(rows).to_float32()) for rows in one.chunks(1 << 20)
    )


def _described(place: Place, stored: Mapping[str, Tensor], format: str | None) -> Described:
    """Its type, before its numbers are read: what several are stacked of must have one format, else they become F32."""
    shape = place.shape[1:] if place.move is STACK else place.shape
    formats = {stored[name].format for name in place.names}
    if format is not None and len(shape) == 2:
        formats = {format}
    elif not place.move.keeps_blocks:
        formats = {"f32" if found in ("q8", "q4") else found for found in formats}
    if formats == {"f32"} and len(shape) == 2 and shape[0] == 1:  # a vector, as llama.cpp's quantiser writes it
        return Described(place.name, F32, shape[1:], 4 * shape[1])
    kind = file_type(formats.pop(), shape) if len(formats) == 1 else F32
    values, size = BLOCKS[kind]
    return Described(place.name, kind, place.shape, math.prod(place.shape) // values * size)


def _metadata(checkpoint: Checkpoint, model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    architecture = model.architecture
    metadata: dict[str, Any] = {
        "general.architecture": architecture.name,
        "general.type": "model",
        "general.name": checkpoint.folder.resolve().name.encode(errors="replace").decode(),
        "general.quantization_version": 2,
    }
    for key, value in values.items():
        if key.startswith("attention.head_count_kv") and key not in architecture.keys:
            continue  # as many as queries
        if (
            key in ("attention.key_length", "attention.value_length")
            and "attention.key_length" not in architecture.keys
        ):
            continue  # the width over the heads
        metadata[f"{architecture.name}.{key}"] = value
    if architecture.mask:
        metadata[f"{architecture.name}.attention.causal"] = False
        metadata["diffusion.shift_logits"] = architecture.name == "dream"  # its rows predict the token after theirs
        metadata["tokenizer.ggml.mask_token_id"] = checkpoint.config.integer("mask_token_id")
    return metadata | tokenizer_metadata(checkpoint, model.sizes["vocab"])
