"""A GGUF file to a checkpoint folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fastdistill.arguments import check_callable, check_choice, check_flag, check_path
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.checkpoint.gguf.config import Model, file_model
from fastdistill.checkpoint.gguf.moves import STACK
from fastdistill.checkpoint.gguf.reader import GgufFile, open_gguf
from fastdistill.checkpoint.gguf.tensors import read_tensor
from fastdistill.checkpoint.gguf.tokenizer import tokenizer_files
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import FORMATS, Tensor


def convert_gguf(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the model of a GGUF file as a checkpoint folder with config, tokenizer and chat template.

    Parameters
    ----------
    source : str | os.PathLike[str]
        a GGUF file, version 2 or 3, of one of ARCHITECTURES; of a model in parts any one, beside which the others lie
    destination : str | os.PathLike[str]
        the folder to make; it appears complete or not at all
    format : str, optional
        None keeps the values of Q4_0, Q4_1, Q5_0, IQ4_NL, Q8_0, F32, F16 and BF16 and dequantises the rest to f32; "q8", "q4", "f32",
        ... converts every matrix to that format (norms and biases stay as they are)
    overwrite : bool, default False
    progress : Callable[[int, int], None], optional
        called with (bytes done, bytes in all) after each tensor

    Returns
    -------
    Path
        the destination

    Raises
    ------
    CheckpointError
        for a file that is not what its header says
    UnsupportedError
        for a model, tensor type or tokenizer that has no equal here
    ArgumentError
        for an unknown format
    """
    source, destination = check_path("source", source), check_path("destination", destination)
    if format is not None:
        check_choice("format", format, FORMATS)
    check_flag("overwrite", overwrite)
    if progress is not None:
        check_callable("progress", progress)
    with open_gguf(source) as file:
        model = file_model(file)
        files = tokenizer_files(file) | {"NOTICE": _notice(file).encode()}
        tensors = _tensors(file, model, format, progress)
        write_checkpoint(destination, model.config, tensors, files, overwrite=overwrite)
    return destination


def _tensors(
    file: GgufFile, model: Model, format: str | None, progress: Callable[[int, int], None] | None
) -> Iterator[Tensor]:
    """The model's tensors under their names here, read and converted one at a time."""
    done, total = 0, sum(file.tensors[place.name].size for place in model.places)
    for place in model.places:
        found = file.tensors[place.name]
        pieces = found.pieces() if place.move is STACK else [found]
        for name, piece in zip(place.names, pieces, strict=True):
            tensor = place.move.to_folder(read_tensor(file, piece, name), model.sizes)
            if format is not None and len(tensor.shape) == 2:
                tensor = quantize_tensor(tensor, format)
            yield tensor
            done += piece.size
            if progress is not None:
                progress(done, total)


def _notice(file: GgufFile) -> str:
    """Where the weights come from and under which licence, as far as the file says."""
    lines = [f"Converted by fastdistill from the GGUF file {os.path.basename(file.name)}. Its metadata say:"]
    for key in ("name", "organization", "author", "url", "source.url", "license", "license.name", "license.link"):
        value = file.metadata.get("general." + key)
        if isinstance(value, str):
            lines.append(f"    {key}: {value[:1000]}")
    return "\n".join(lines) + "\n"
