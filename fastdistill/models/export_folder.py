"""A model's folder as a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastdistill.checkpoint import open_checkpoint
from fastdistill.models.agreement import plan_of


def export_folder(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    format: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the model of a folder, its tokenizer and its chat template as a GGUF file, which llama.cpp runs.

    Matrices keep their numbers to the bit: q8 becomes Q8_0, q4 becomes Q4_1, f32, f16 and bf16 what they are. Norms and
    biases become F32, as llama.cpp wants them.

    Parameters
    ----------
    source : str | os.PathLike[str]
        the folder to read
    destination : str | os.PathLike[str]
        the file to make, NAME.gguf; it appears complete or not at all
    format : str, optional
        of matrices; None keeps theirs
    progress : Callable[[int, int], None], optional
        called with (bytes done, bytes in all) of the file's tensors
    overwrite : bool, default False
        replace the file that is there

    Raises
    ------
    CheckpointError
        for a source that is not sound and a destination that is there
    ArgumentError
        for an unknown format, and a destination that is not called so
    UnsupportedError
        for a model that cannot be loaded, and one that llama.cpp computes otherwise; nothing is written then
    """
    from fastdistill.checkpoint.gguf import export_checkpoint  # a model is loaded without it

    with open_checkpoint(source) as checkpoint:
        plan_of(checkpoint)
        export_checkpoint(checkpoint, destination, format, progress, overwrite)
