"""Where a bench finds the real model and the text it reads."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path

from bench.lib.peers import missing
from fastdistill.fetch import cached_folder

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
