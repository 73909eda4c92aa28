"""Files that somebody else wrote: read whole, never more than is honest, never waiting for a pipe's writer."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from fastdistill.errors import CheckpointError, FastDistillError
from fastdistill.messages import short

# Longer than any honest JSON here (tokenizers reach 20 MB); safetensors has the same limit for its header.
MAX_JSON_BYTES = 100_000_000


def read_file(path: Path, most: int = MAX_JSON_BYTES, error: type[FastDistillError] = CheckpointError) -> bytes:
    """The bytes of a regular file of at most `most`, which takes no more memory than them.

    raises  `error`, naming the file and what is wrong with it
    """
    try:
        # A pipe without a writer would hold up an open that blocks; a device may give bytes without end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise error(f"{path}: is no regular file")
            if found.st_size > most:
                raise error(f"{path}: has {found.st_size} bytes; expected at most {most}")
            data = file.read(found.st_size)
            if file.read(1):
                raise error(f"{path}: grows while it is read")
    except FileNotFoundError:
        raise error(f"{path}: there is no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}") from problem
    except ValueError as problem:  # a zero byte in its name
        raise error(f"{short(str(path))}: cannot be read: {problem}") from problem
    return data


def parse_json(data: bytes, source: str, error: type[FastDistillError] = CheckpointError) -> dict[str, Any]:
    """One JSON object, as RFC 8259 has it: UTF-8, no name twice in an object, every number finite.

    raises  `error`, naming the source
    """
    if text := foreign_text(data):
        raise error(f"{source}: is {text}")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_distinct, parse_constant=_finite_float, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as problem:
        raise error(f"{source}: is not valid JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise error(f"{source}: must be a JSON object, found {short(value)}")
    return value


def read_json(
    path: Path, most: int = MAX_JSON_BYTES, error: type[FastDistillError] = CheckpointError
) -> dict[str, Any]:
    """The JSON object of a file: `read_file`, then `parse_json`."""
    return parse_json(read_file(path, most, error), str(path), error)


def foreign_text(start: bytes) -> str | None:
    """What lies in a file's place where its download went wrong, from its first bytes; None: nothing known."""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file: run `git lfs install && git lfs pull` in its repository"
    if start[:1024].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file: a model's page or a login; download the file itself"
    return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"{short(name)} comes twice in one object")
        value[name] = item
    return value


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{short(text)} is not a finite number")
    return number
