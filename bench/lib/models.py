"""Where a bench finds the real model and the text it reads."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib.peers import missing
from fastdistill.checkpoint import Config, Tensor, quantize_tensor
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.fetch import cached_folder
from fastdistill.models import export_folder, plan_for

MODEL = "smollm2-135m-instruct"
PASSAGE = Path(__file__).with_name(
    "passage.txt"
)  # Lewis Carroll, Alice's Adventures in Wonderland, 1865: how it begins


def passage() -> str:
    """Some 750 tokens of English prose."""
    return PASSAGE.read_text(encoding="utf-8")


def add_model_argument(parser: ArgumentParser) -> None:
    """--model."""
    parser.add_argument(
        "--model", type=Path, default=cached_folder(MODEL), help="folder (default: where `fastdistill fetch` puts it)"
    )


def add_model_arguments(parser: ArgumentParser) -> None:
    """--model and --gguf."""
    add_model_argument(parser)
    gguf = os.environ.get("FASTDISTILL_GGUF")
    parser.add_argument(
        "--gguf",
        type=Path,
        default=gguf and Path(gguf),
        help="the file it was converted from (default: FASTDISTILL_GGUF)",
    )


def no_llama_cpp(gguf: Path | None) -> str | None:
    """Why llama.cpp cannot be compared with; None where it can."""
    return missing("llama_cpp") or (None if gguf else "no GGUF file: give --gguf or FASTDISTILL_GGUF")


def exported(folder: Path, format: str | None, work: Path) -> Path:
    """The folder as a GGUF file, made once, with its matrices in a format or as they are."""
    written = max(file.stat().st_mtime_ns for file in folder.iterdir())
    target = work / f"{folder.name}.{written:x}.{format or 'stored'}.gguf"
    if not target.exists():
        export_folder(folder, target, format)
    return target


def random_folder(folder: Path, config: Mapping[str, Any], tokenizer: Path) -> Path:
    """A model of this config with random weights, matrices in q4, and another's tokenizer; made once."""
    if folder.exists():
        return folder
    plan, random = plan_for(Config(dict(config))), np.random.default_rng(0)

    def tensors() -> Iterator[Tensor]:
        for name, shape in plan.stored.items():
            data = random.standard_normal(shape, np.float32)
            if len(shape) == 1:  # of a norm
                yield Tensor(name, "f32", shape, 1 + data / 10)
            else:
                yield quantize_tensor(Tensor(name, "f32", shape, data * np.float32(shape[-1] ** -0.5)), "q4")

    files = {file.name: file.read_bytes() for file in tokenizer.iterdir() if file.name.startswith("tokenizer")}
    write_checkpoint(folder, config, tensors(), files)
    return folder
