"""embed, rank, classify: commands that read texts with an encoder."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.cli.terminal import FORMATS, MODEL_HELP, add_command, say, visible
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import read_file, whole_file
from fastdistill.messages import short

if TYPE_CHECKING:
    import numpy as np

    from fastdistill.api import Model

_MOST_BYTES = 1 << 30  # of all texts
_EMBED = """\
  fastdistill embed all-minilm-l6-v2 sentences.txt --out vectors.npy
  fastdistill embed ./model notes.jsonl --normalize > vectors.jsonl
  echo "a sentence" | fastdistill embed all-minilm-l6-v2

FILE holds a text a line, or, as NAME.jsonl, a JSON value a line: a text, or an object with "text". Without --out each vector is
printed as a line of JSON, {"text": ..., "vector": [...]}; with it all are written as one NumPy array, float32 (texts, width).
Texts longer than the model reads are cut, and counted.
"""
_RANK = """\
  fastdistill rank all-minilm-l6-v2 "how do plants eat?" passages.txt --top-k 5
  fastdistill rank ./cross-encoder "how do plants eat?" passages.jsonl --json

The documents of FILE, as `fastdistill embed` reads them, best first: by the cosine of vectors, or by a classifier of pairs with one
label, a cross-encoder.
"""
_CLASSIFY = """\
  fastdistill classify ./model reviews.txt
  fastdistill classify ./model pairs.jsonl --json

FILE is as of `fastdistill embed`; in JSON a text may also be a pair, ["first", "second"], or {"text": ..., "pair": ...}.
"""


def add_commands(commands: Any) -> None:
    embed = add_command(commands, "embed", run_embed, "make vectors of texts", _EMBED)
    _add_model(embed)
    _add_file(embed)
    embed.add_argument("--out", metavar="NAME.npy", help="write one array there, in place of lines of JSON")
    embed.add_argument("--normalize", action="store_true", help="make vectors of length 1")
    embed.add_argument("--pooling", metavar="NAME", help="mean, cls, max, ... (default: as the folder says)")
    embed.add_argument("--prompt-name", metavar="NAME", help="put this prompt of the folder before each text")
    embed.add_argument("--prompt", metavar="TEXT", help="put these words before each text")
    embed.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N numbers of each vector")
    _add_shared(embed)
    rank = add_command(commands, "rank", run_rank, "order texts by how well they fit a query", _RANK)
    _add_model(rank)
    rank.add_argument("query", metavar="QUERY", help="what is looked for")
    _add_file(rank)
    rank.add_argument("--top-k", type=int, metavar="K", help="the first K alone (default: all)")
    rank.add_argument("--json", action="store_true", help="print a line of JSON each: index, score, text")
    _add_shared(rank)
    classify = add_command(commands, "classify", run_classify, "say which label a classifier gives texts", _CLASSIFY)
    _add_model(classify)
    _add_file(classify)
    classify.add_argument(
        "--json", action="store_true", help="print a line of JSON each, with the scores of all labels"
    )
    _add_shared(classify)


def run_embed(arguments: argparse.Namespace) -> None:
    if arguments.out is not None and not arguments.out.endswith(".npy"):
        raise ArgumentError(f"--out must end in .npy, got {short(arguments.out)}")
    texts = single_texts(arguments.file)
    model = _load(arguments)
    if arguments.out is None:
        for text, vector in zip(texts, _vectors(model, texts, arguments).tolist(), strict=True):
            print(json.dumps({"text": text, "vector": vector}, ensure_ascii=False))
        return
    import numpy as np

    # Opened first: what cannot be written is said before the work.
    with whole_file(arguments.out) as made, made.open("wb") as file:
        started = time.perf_counter()
        vectors = _vectors(model, texts, arguments)
        seconds = time.perf_counter() - started
        np.save(file, vectors, allow_pickle=False)
    say(f"{len(texts)} vectors of {vectors.shape[1]} numbers in {arguments.out}, made in {seconds:.1f} s")


def _vectors(model: Model, texts: list[str], arguments: argparse.Namespace) -> np.ndarray:
    return model.encode(
        texts,
        batch_size=arguments.batch_size,
        normalize_embeddings=arguments.normalize or None,
        pooling=arguments.pooling,
        prompt_name=arguments.prompt_name,
        prompt=arguments.prompt,
        truncate_dim=arguments.truncate_dim,
        show_progress_bar=_bar(),
    )


def run_rank(arguments: argparse.Namespace) -> None:
    found = _load(arguments).rank(
        arguments.query,
        single_texts(arguments.file),
        top_k=arguments.top_k,
        batch_size=arguments.batch_size,
        show_progress_bar=_bar(),
    )
    for each in found:
        print(
            json.dumps(asdict(each), ensure_ascii=False)
            if arguments.json
            else f"{each.score:8.4f}  {visible(each.text)}"
        )


def run_classify(arguments: argparse.Namespace) -> None:
    texts = [*_texts(arguments.file)]
    found = _load(arguments).classify(texts, batch_size=arguments.batch_size, show_progress_bar=_bar())
    for text, each in zip(texts, found, strict=True):
        shown = text if isinstance(text, str) else " | ".join(text)
        line = {"text": text} | asdict(each)
        print(
            json.dumps(line, ensure_ascii=False)
            if arguments.json
            else f"{each.score:8.4f}  {visible(each.label)}  {visible(shown)}"
        )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="the texts; -: what stdin holds (the default)"
    )


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, metavar="N", help="texts that share a pass (default: as many as fit)")
    parser.add_argument("--format", choices=FORMATS, help="convert the model's linears (default: as stored)")
    parser.add_argument("--threads", type=int, metavar="N", help="of every pass (default: all)")


def _load(arguments: argparse.Namespace) -> Model:
    from fastdistill.api import load

    return load(arguments.model, format=arguments.format, threads=arguments.threads)


def _bar() -> bool:
    return sys.stderr.isatty()


def single_texts(file: str) -> list[str]:
    """The texts of a file that holds no pairs."""
    found = []
    for text in _texts(file):
        if not isinstance(text, str):
            raise ArgumentError(f"{file}: holds a pair of texts; expected single ones")
        found.append(text)
    return found


def _texts(file: str) -> Iterator[str | tuple[str, str]]:
    """The texts of a file, or of stdin, line by line."""
    if file == "-":
        if sys.stdin.isatty():
            say("(a text a line, as typed here; Ctrl-D ends them)")
        name, data = "stdin", sys.stdin.buffer.read(_MOST_BYTES + 1)
    else:
        name, data = file, read_file(Path(file), _MOST_BYTES + 1, CheckpointError)
    if len(data) > _MOST_BYTES:
        raise ArgumentError(f"{name} has more than {_MOST_BYTES >> 20} MB of texts: give them in parts")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name} is not UTF-8: {error}") from None
    if not lines[-1]:  # behind the last line's end
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not file.endswith(".jsonl"):
            yield line.removesuffix("\r")
        elif line.strip():
            yield _of_json(line, f"{name}:{number}")


def _of_json(line: str, where: str) -> str | tuple[str, str]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{where}: is no JSON: {error}") from None
    if isinstance(value, dict):
        value = [value.get("text"), value["pair"]] if "pair" in value else value.get("text")
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value[0], value[1]
    if not isinstance(value, str):
        raise ArgumentError(f'{where}: must be a text, a pair of texts, or an object with "text"; found {short(line)}')
    return value
