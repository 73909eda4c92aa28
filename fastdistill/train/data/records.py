"""Records one by one, from files: lines of JSON, and the text of plain files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastdistill.arguments import check_path, refuse
from fastdistill.errors import DataError
from fastdistill.files import MAX_JSON_BYTES, foreign_text, parse_json

LINES, PLAIN = (".jsonl", ".ndjson"), (".txt",)
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
# Of a plain file, in bytes: what is encoded at once takes a hundred times its memory meanwhile.  A block ends with a line, which
# no token of the usual pre-tokenizers goes beyond.
BLOCK = 1 << 18


def read_records(paths: Paths) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each record stands, "data.jsonl:7", and what it holds.

    A line of a .jsonl or .ndjson file is one, blank lines aside; a .txt file is {"text": blocks of it}.

    Raises
    ------
    ArgumentError
    DataError
        naming file and line
    """
    for path in data_files(paths):
        if path.suffix.lower() in PLAIN:
            yield str(path), {"text": _blocks(path)}
            continue
        for place, line in _lines(path):
            if line.strip():
                yield place, parse_json(line.strip(), place, DataError)


def data_files(paths: Paths) -> list[Path]:
    """The files that are meant, in order: of a folder all that it holds, by name.

    Raises
    ------
    ArgumentError
    DataError
    """
    single = isinstance(paths, (str, os.PathLike))
    if not single and not isinstance(paths, Iterable):
        refuse("paths", "a file, a folder or several of them", paths)
    found: list[Path] = []
    for path in [check_path("paths", each) for each in ([paths] if single else paths)]:  # type: ignore[union-attr,list-item]
        if path.is_dir():
            within = sorted(each for each in path.rglob("*") if each.suffix.lower() in LINES + PLAIN)
            if not within:
                raise DataError(f"{path}: the folder holds none of {', '.join(f'*{kind}' for kind in LINES + PLAIN)}")
            found += within
        elif path.suffix.lower() not in LINES + PLAIN:
            raise DataError(f"{path}: expected a folder, or a file whose name ends in {', '.join(LINES + PLAIN)}")
        else:
            found.append(path)
    if not found:
        refuse("paths", "at least one file or folder", paths)
    return found


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line and where it stands."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path}: cannot be read: it is no regular file")
    try:
        with path.open("rb") as file:
            start = file.peek(1024)
            if text := foreign_text(start):
                raise DataError(f"{path}: is {text}")
            if start.startswith(b"\xef\xbb\xbf"):  # how some editors begin UTF-8
                file.read(3)
            number = 0
            while line := file.readline(MAX_JSON_BYTES + 1):
                number += 1
                if len(line) > MAX_JSON_BYTES:
                    raise DataError(f"{path}:{number}: the line has more than {MAX_JSON_BYTES:,} bytes")
                yield f"{path}:{number}", line
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem.strerror}") from problem


def _blocks(path: Path) -> Iterator[str]:
    """The text of a plain file, a few lines at a time."""
    block, size = list[str](), 0
    for place, line in _lines(path):
        try:
            block.append(line.decode())
        except UnicodeDecodeError as problem:
            raise DataError(f"{place}: is not UTF-8: {problem.reason} at byte {problem.start} of the line") from None
        size += len(line)
        if size >= BLOCK:
            yield "".join(block)
            block, size = [], 0
    yield "".join(block)
