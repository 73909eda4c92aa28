"""All that writes what stays: each under a name that it gives when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastdistill as fd
from fastdistill.checkpoint.gguf import convert_gguf
from fastdistill.decode.unmask.trace import Trace, TraceStep
from fastdistill.distill import TeacherWriter
from fastdistill.models import export_folder, quantize_folder
from fastdistill.show import curves_png, trace_png


class Sources(NamedTuple):
    """What is read.

    Attributes
    ----------
    folder : Path
        of a model
    gguf : Path
        a GGUF file
    model : fd.Model
        of the folder
    """

    folder: Path
    gguf: Path
    model: fd.Model


def save_session(sources: Sources, target: Path) -> None:
    session = sources.model.session(256)
    sources.model.generate("what is kept ", max_tokens=30, session=session)
    session.save(target)


def write_teacher(sources: Sources, target: Path) -> None:
    random = np.random.default_rng(0)
    with TeacherWriter(target, 300, 20) as file:
        for _ in range(6):
            file.append(random.standard_normal((40, 300)))


def draw_trace(sources: Sources, target: Path) -> None:
    none = np.empty(0, np.int32)
    steps = [TraceStep(np.array([place]), np.array([7]), np.array([0.5]), none, 8) for place in range(8)]
    trace_png(Trace(8, 1, steps), target)


def draw_curves(sources: Sources, target: Path) -> None:
    curves_png({"run": [{"step": step, "loss": 1 / step} for step in range(1, 40)]}, target)


# name -> (the name it gives, what writes it, in the place of what has that name)
WRITERS: dict[str, tuple[str, Callable[[Sources, Path], object]]] = {
    "quantize": ("made", lambda sources, target: quantize_folder(sources.folder, target, "q8", overwrite=True)),
    "convert": ("made", lambda sources, target: convert_gguf(sources.gguf, target, overwrite=True)),
    "export": ("made.gguf", lambda sources, target: export_folder(sources.folder, target, overwrite=True)),
    "session": ("made", save_session),
    "teacher file": ("made", write_teacher),
    "trace": ("made.png", draw_trace),
    "curves": ("made.png", draw_curves),
}


def tree(path: Path) -> dict[str, bytes]:
    """All files below a folder, or the one that it is; nothing where nothing is."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(each.relative_to(path)): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}
