"""The work on a draft that lies in a folder until it is done: how long it has taken, small facts, errors that say what goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fastdistill.errors import CheckpointError
from fastdistill.files import read_json, replace_file, work_folder

AGAIN = "the same call"  # goes on with what there is


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Writing there; an OSError becomes a CheckpointError that says what goes on."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{place}: cannot be written: {error.strerror or error}; nothing before is lost: {AGAIN} goes on"
        ) from error


def keep(path: Path, facts: Mapping[str, float]) -> None:
    """Write a JSON file, whole or not at all."""
    with writing_to(path), work_folder(path) as work:
        (work / "facts").write_text(json.dumps(facts), "utf-8")
        replace_file(path, work / "facts")


class WorkTime:
    """Time of work: since this call began, and of those before it.

    Parameters
    ----------
    file : Path
        where it is kept between calls
    began : float
        this call, by `time.monotonic()`
    """

    def __init__(self, file: Path, began: float) -> None:
        self._file, self._began = file, began
        self._before = float(read_json(file)["seconds"]) if file.exists() else 0.0

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def keep(self) -> None:
        """For the next call.

        Raises
        ------
        CheckpointError
        """
        keep(self._file, {"seconds": self.seconds})
