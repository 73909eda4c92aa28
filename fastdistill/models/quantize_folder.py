"""A model's folder in another format."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastdistill.arguments import check_choice
from fastdistill.checkpoint import FORMATS, open_checkpoint, quantize_checkpoint
from fastdistill.checkpoint.quantize import converts
from fastdistill.models.agreement import plan_of


def quantize_folder(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    format: str,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the model of a folder with its matrices (embedding, linears, head) in another format.

    Everything else stays: norms, biases, tokenizer, configs. The destination appears complete or not at all, and may be
    the source where it is to be overwritten.

    Parameters
    ----------
    source : str | os.PathLike[str]
        the folder to read
    destination : str | os.PathLike[str]
        the folder to make
    format : str
        of matrices
    progress : Callable[[int, int], None], optional
        called with (bytes done, bytes in all) of the source after each tensor
    overwrite : bool, default False
        replace the checkpoint that is there

    Raises
    ------
    CheckpointError
        for a source that is not sound and a destination that is there
    ArgumentError
        for an unknown format
    UnsupportedError
        for a model that cannot be loaded; nothing is written then
    """
    check_choice("format", format, FORMATS)
    with open_checkpoint(source) as checkpoint:
        plan = plan_of(checkpoint)
        # What is written has to be a model still.
        kept = {name for weight in plan.weights.values() if weight.exact for name in weight.source.stored}
        plan.formats(
            {name: format if converts(found, kept) else found.format for name, found in checkpoint.tensors.items()}
        )
        quantize_checkpoint(checkpoint, destination, format, progress, overwrite, kept)
