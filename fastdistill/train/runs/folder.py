"""The folder of a run: what decides it, what it measured, and what it needs to go on.

    RUN/config.json    everything that decides the run, written when it begins
    RUN/metrics.jsonl  a line a step
    RUN/checkpoints/   parameters, moments and how far it has come; the newest two
    RUN/model/         at the end: a folder to load

One process at a time works in it, by a lock that the system takes from those who die. Whenever a process is killed, the
next one goes on from the newest checkpoint and does the same again, to the bit: each step is a function of the state
before it and of its number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import check_path
from fastdistill.errors import BusyError, CheckpointError
from fastdistill.files import clear_left, read_json, work_folder
from fastdistill.platform import locked, rename_folder, synchronise
from fastdistill.train.runs.checkpoints import Checkpoints, Progress
from fastdistill.train.runs.metrics import Metrics

CONFIG, METRICS, CHECKPOINTS, MODEL = "config.json", "metrics.jsonl", "checkpoints", "model"


class RunFolder:
    """A run's folder, held by this process until `close`: `with RunFolder(path) as run: train(..., run=run)`.

    Parameters
    ----------
    path : str or PathLike
    config : Mapping[str, Any], optional
        begin a run that this decides; None: go on with the one that is there
    again : str, optional
        what goes on with it, in words for errors; None: the command train

    Attributes
    ----------
    path : Path
    config : dict[str, Any]
        of config.json
    progress : Progress
        the newest checkpoint's, once `restore` has been called

    Raises
    ------
    CheckpointError
        where a run is there already, or none is, or what is there is no run
    BusyError
        where another process is at work in it
    """

    def __init__(
        self, path: str | os.PathLike[str], config: Mapping[str, Any] | None = None, again: str | None = None
    ) -> None:
        self.path = check_path("path", path)
        self._again = again or f"`fastdistill train --resume {self.path}`"
        self.progress = Progress()
        self._metrics: Metrics | None = None
        if config is not None:
            _create(self.path, config)
        self.config = read_config(self.path)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path, wait=False))
            except BlockingIOError:
                raise BusyError(f"{self.path}: another process is at work in this run") from None
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot be locked: {error.strerror}") from error
            clear_left(self.path)  # of one killed as the folder was made
            try:
                self._checkpoints = Checkpoints(self.path / CHECKPOINTS)
            except OSError as error:
                raise CheckpointError(f"{self.path / CHECKPOINTS}: cannot be used: {error.strerror}") from error
            self._open = stack.pop_all()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others work in it."""
        if self._metrics is not None:
            self._metrics.close()
        self._open.close()

    @property
    def model(self) -> Path:
        """Where the trained model lies at the end."""
        return self.path / MODEL

    @property
    def saved(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return max(self._checkpoints.steps, default=0)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Progress:
        """Fill arrays from the newest checkpoint, and take back what was measured after it.

        Parameters
        ----------
        arrays : Mapping[str, np.ndarray]
            float32, by name, of what `save` was given; they stay as they are where there is no checkpoint yet

        Raises
        ------
        CheckpointError
            also where the disk has too little room for what is to come
        """
        self._checkpoints.check_room(arrays)
        self.progress = self._checkpoints.load(arrays)
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = Metrics(self.path / METRICS, self.progress.step or -1)
        return self.progress

    def measured(self, record: dict[str, Any]) -> None:
        """Add the line of a step.

        Raises
        ------
        CheckpointError
        """
        assert self._metrics is not None, "restore comes first"
        try:
            self._metrics.append(record)
        except OSError as error:
            raise self._unwritten(METRICS, error) from error

    def save(self, progress: Progress, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint, behind the lines of its steps.

        Parameters
        ----------
        progress : Progress
        arrays : Mapping[str, np.ndarray]
            float32, by name: all that the next step depends on

        Raises
        ------
        CheckpointError
            where it cannot be written; what was written before is as it was
        """
        assert self._metrics is not None, "restore comes first"
        if progress.step == self.progress.step:
            return
        try:
            self._metrics.synchronise()
            self._checkpoints.save(progress, arrays)
        except OSError as error:
            raise self._unwritten(f"the checkpoint of step {progress.step}", error) from error
        self.progress = progress

    def _unwritten(self, what: str, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {what} cannot be written: {error.strerror or error}; nothing before is lost: once there is room, "
            f"{self._again} goes on from step {self.saved}"
        )


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run's folder.

    Raises
    ------
    CheckpointError
    """
    if not (path / CHECKPOINTS).is_dir():
        found = "is no run: it has no checkpoints/" if path.exists() else "there is no such run"
        raise CheckpointError(f"{path}: {found}")
    return read_json(path / CONFIG)


def check_free(path: Path) -> None:
    """Refuse a name that something has, but for an empty folder.

    Raises
    ------
    CheckpointError
    """
    if (path / CHECKPOINTS).is_dir():
        raise CheckpointError(
            f"{path}: holds a run already: `fastdistill train --resume {path}` goes on with it; a new one needs another folder"
        )
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path}: is there already and is no run: choose another name")


def _create(path: Path, config: Mapping[str, Any]) -> None:
    """Make the folder, whole or not at all."""
    text = json.dumps(dict(config), indent=2, allow_nan=False)
    try:
        check_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(path) as work:
            made = work / "run"
            (made / CHECKPOINTS).mkdir(parents=True)
            (made / CONFIG).write_text(text + "\n", "utf-8")
            synchronise(made / CONFIG)
            rename_folder(made, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be made: {error.strerror}") from error
