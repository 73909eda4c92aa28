"""Tensors and checkpoints from one format to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import numpy as np

from fastdistill.arguments import check_callable, check_choice, check_flag, check_instance
from fastdistill.checkpoint.blocks import quantize_q4, quantize_q8
from fastdistill.checkpoint.folder import KEPT_SUFFIXES, Checkpoint, write_checkpoint
from fastdistill.checkpoint.tensor import FORMATS, Tensor, layout
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import WITHIN, read_file

# Values converted at once: what a step makes of them stays in a core's cache.
_CHUNK = 1 << 17


def quantize_tensor(tensor: Tensor, format: str) -> Tensor:
    """The tensor in another format (the same one, where it has that format), each value rounded to nearest.

    Parameters
    ----------
    tensor : Tensor
        any
    format : str
        one of FORMATS

    Raises
    ------
    CheckpointError
        where a value is not finite or the format cannot hold it
    ArgumentError
        for an unknown format and for q8 or q4 of what is not a matrix
    """
    check_instance("tensor", tensor, Tensor)
    check_choice("format", format, FORMATS)
    if format in ("q8", "q4") and len(tensor.shape) != 2:
        raise ArgumentError(f"{tensor.name}: {format} is for matrices, got the shape {tensor.shape}")
    if tensor.format == format:
        return tensor
    parts = {part: np.empty(shape, dtype) for part, (dtype, shape) in layout(format, tensor.shape).items()}
    for rows in tensor.chunks(_CHUNK):
        values = tensor.rows(rows).to_float32()
        if not np.isfinite(values).all():
            raise CheckpointError(f"{tensor.name}: holds {values[~np.isfinite(values)][0]}; expected finite numbers")
        with np.errstate(over="ignore", invalid="ignore"):
            piece = Tensor(tensor.name, format, values.shape, *_CONVERT[format](values))
            fits = np.isfinite(piece.to_float32()).all()
        if not fits:
            raise CheckpointError(f"{tensor.name}: holds {np.abs(values).max():g}, more than {format} can")
        for part, array in piece.parts.items():
            parts[part][rows] = array
    return Tensor(tensor.name, format, tensor.shape, **parts)


def quantize_checkpoint(
    checkpoint: Checkpoint,
    destination: str | os.PathLike[str],
    format: str,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    kept: Set[str] = frozenset(),
) -> None:
    """Write an open folder as `fastdistill.models.quantize_folder` does, whether or not a model can be made of it.

    Parameters
    ----------
    checkpoint : Checkpoint
        an open folder
    destination : str | os.PathLike[str]
        the folder to make
    format : str
        of matrices
    progress : Callable[[int, int], None], optional
        called with (bytes done, bytes in all)
    overwrite : bool, default False
        replace the checkpoint that is there
    kept : Set[str], optional
        names of matrices that stay as they are

    Raises
    ------
    CheckpointError
        for values that the format cannot hold and a destination that is there
    ArgumentError
        for an unknown format
    """
    check_instance("checkpoint", checkpoint, Checkpoint)
    check_choice("format", format, FORMATS)
    check_flag("overwrite", overwrite)
    check_instance("kept", kept, Set)
    if progress is not None:
        check_callable("progress", progress)
    tensors = _converted(checkpoint, format, progress, kept)
    write_checkpoint(destination, checkpoint.config.raw, tensors, other_files(checkpoint.folder), overwrite)


def converts(tensor: Tensor, kept: Set[str] = frozenset()) -> bool:
    """Whether `quantize_checkpoint` writes a tensor in another format: the matrices of a model, but those `kept`."""
    matrix = len(tensor.shape) == 2 and tensor.name.endswith(".weight")
    return matrix and tensor.name not in kept and tensor.format in FORMATS


def _converted(
    checkpoint: Checkpoint, format: str, progress: Callable[[int, int], None] | None, kept: Set[str]
) -> Iterator[Tensor]:
    done, total = 0, sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    for tensor in checkpoint.tensors.values():
        yield quantize_tensor(tensor, format) if converts(tensor, kept) else tensor
        done += tensor.nbytes
        if progress is not None:
            progress(done, total)


def other_files(folder: Path) -> dict[str, bytes]:
    """What a model's folder holds beside config.json and weights, by name, as `write_checkpoint` takes it."""
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix in KEPT_SUFFIXES and not path.is_dir() and not path.name.startswith(".")
        if path.name != "config.json" and not path.name.endswith(".index.json")
    ]
    paths += [path for pattern in WITHIN for path in folder.glob(pattern)]
    return {path.relative_to(folder).as_posix(): read_file(path) for path in sorted(paths)}


def _to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> the bits of bf16, to nearest, half to even: carries run into the exponent as they should."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


_CONVERT: dict[str, Callable[[np.ndarray], tuple[np.ndarray, ...]]] = {
    "f32": lambda values: (values,),
    "f16": lambda values: (values.astype(np.float16),),
    "bf16": lambda values: (_to_bf16(values),),
    "q8": quantize_q8,
    "q4": quantize_q4,
}
