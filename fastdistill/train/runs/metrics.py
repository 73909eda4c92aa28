"""metrics.jsonl: a line of JSON a step, each step once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fastdistill.errors import CheckpointError
from fastdistill.files import read_file

MOST_BYTES = 1 << 32


def read_metrics(path: Path, last: int | None = None) -> list[dict[str, Any]]:
    """The lines of a file, the steps going up; at the first that is torn, of no step or beyond the last step it ends.

    Parameters
    ----------
    path : Path
    last : int, optional
        None: all of them

    Raises
    ------
    CheckpointError
        where the file cannot be read
    """
    return [record for record, _ in _lines(path, last)]


class Metrics:
    """A file that lines are added to, behind those of the steps that count.

    Parameters
    ----------
    path : Path
    step : int, default 0
        the last step whose line stays: those of later ones, which will be done again, and torn ones go

    Raises
    ------
    CheckpointError
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self._path, self._end = path, 0
        if os.path.lexists(path):
            for _, end in _lines(path, step):
                self._end = end
        try:
            self._file = path.open("ab", buffering=0)
            self._file.truncate(self._end)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error

    def append(self, record: dict[str, Any]) -> None:
        """Write a line, whole or not at all.

        Raises
        ------
        OSError
        """
        line = json.dumps(record).encode() + b"\n"
        done = 0
        try:
            while done < len(line):
                done += self._file.write(line[done:])
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(line)

    def synchronise(self) -> None:
        """Have the lines on the disk.

        Raises
        ------
        OSError
        """
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _lines(path: Path, last: int | None) -> list[tuple[dict[str, Any], int]]:
    """Each record, and where in the file its line ends."""
    found: list[tuple[dict[str, Any], int]] = []
    step, end = -1, 0
    for line in read_file(path, MOST_BYTES).splitlines(keepends=True):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        number = record.get("step") if type(record) is dict else None
        if type(number) is not int or number <= step or (last is not None and number > last) or line[-1:] != b"\n":
            break
        step, end = number, end + len(line)
        found.append((record, end))
    return found
