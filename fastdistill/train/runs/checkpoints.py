"""What a run needs to go on, in one file a step: it is there whole or not at all, and the newest two are kept."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastdistill.checkpoint.safetensors_file import Stored, open_safetensors, write_safetensors
from fastdistill.errors import CheckpointError
from fastdistill.files import replace_file, work_folder
from fastdistill.messages import listed, short, warn
from fastdistill.platform import synchronise

KEPT = 2
_NAME = re.compile(r"step-(\d{8,18})\.safetensors")


class Progress(NamedTuple):
    """How far a run has come.

    Attributes
    ----------
    step : int
        steps that are done
    seconds : float
        of work, those of processes before this one included
    """

    step: int = 0
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of a run, in a folder that one process writes.

    Parameters
    ----------
    folder : Path
        that is there

    Attributes
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with work_folder(self._work):  # what a killed process has left goes
            pass

    @property
    def steps(self) -> list[int]:
        """Of which there is one, the newest first."""
        names = map(_NAME.fullmatch, os.listdir(self.folder))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.safetensors"

    def save(self, progress: Progress, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one, then let go of all but the newest two.

        Parameters
        ----------
        progress : Progress
        arrays : Mapping[str, np.ndarray]
            float32, by name; they are not copied

        Raises
        ------
        OSError
            then those before it are there as they were
        """
        facts = {"step": str(progress.step), "seconds": repr(progress.seconds)}
        with work_folder(self._work) as work:
            made = work / "state"
            write_safetensors(made, {name: Stored("F32", array) for name, array in arrays.items()}, facts)
            synchronise(made)
            replace_file(self.path(progress.step), made)
            synchronise(self.folder)
        for step in self.steps[KEPT:]:
            self.path(step).unlink()

    def check_room(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse to begin what would find the disk full: KEPT of these and one that is written.

        Raises
        ------
        CheckpointError
        OSError
        """
        there = sum(self.path(step).stat().st_size for step in self.steps)
        needed = (KEPT + 1) * sum(array.nbytes for array in arrays.values()) - there
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CheckpointError(
                f"{self.folder}: the disk has {free // 10**6:,} MB free; the checkpoints of this run need {needed // 10**6 + 1:,} MB"
            )

    def load(self, arrays: Mapping[str, np.ndarray]) -> Progress:
        """Fill arrays from the newest one; where that is damaged, from the one before it.

        Parameters
        ----------
        arrays : Mapping[str, np.ndarray]
            float32, by name, to be written

        Returns
        -------
        Progress
            of that checkpoint; of the start where there is none yet

        Raises
        ------
        CheckpointError
            where none can be read, and where one is of other arrays than these
        """
        steps = self.steps
        for step in steps:
            path = self.path(step)
            try:
                stored, facts = open_safetensors(path)
                progress = Progress(step, float(facts["seconds"]))
            except (CheckpointError, KeyError, ValueError) as error:
                if step == steps[-1]:
                    raise
                warn(f"{short(path.name)} is damaged, and the checkpoint before it is taken: {error}")
                continue
            _check(path, stored, arrays)
            for name, array in arrays.items():
                np.copyto(array, np.asarray(stored[name].array))
            return progress
        return Progress()

    @property
    def _work(self) -> Path:
        return self.folder / "state"


def _check(path: Path, stored: Mapping[str, Stored], arrays: Mapping[str, np.ndarray]) -> None:
    wrong = [f"{name} is missing" for name in arrays.keys() - stored.keys()]
    wrong += [f"{short(name, 200)} is not expected" for name in stored.keys() - arrays.keys()]
    wrong += [
        f"{name} is {entry.dtype} {entry.array.shape}, expected F32 {array.shape}"
        for name, array in arrays.items()
        if (entry := stored.get(name)) and (entry.dtype, entry.array.shape) != ("F32", array.shape)
    ]
    if wrong:
        raise CheckpointError(f"{path}: is no checkpoint of what is to go on: {listed(sorted(wrong))}")
