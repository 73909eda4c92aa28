"""The work on a draft, in a folder beside the one that it makes: what an interrupt leaves there the same call goes on with."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from fastdistill.arguments import check_path
from fastdistill.errors import CheckpointError, DataError
from fastdistill.train.own_texts.lots import Lots
from fastdistill.train.own_texts.prompts import prompts_in
from fastdistill.train.own_texts.settings import DraftSettings
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.work import AGAIN, WorkTime
from fastdistill.train.runs import RunFolder


class Job(NamedTuple):
    """Work that is under way.

    Attributes
    ----------
    folder : Path
        to make
    target : Target
        that writes
    run : RunFolder
        where the work lies
    clock : WorkTime
        how long it has taken
    lots : Lots
        what the target writes
    """

    folder: Path
    target: Target
    run: RunFolder
    clock: WorkTime
    lots: Lots


@contextmanager
def begin(
    settings: DraftSettings,
    folder: str | os.PathLike[str],
    report: Callable[[str], None],
    check: Callable[[Target], None] = lambda target: None,
    max_length: int | None = None,
) -> Iterator[Job]:
    """Begin, or go on; FOLDER.run is removed when the folder is there.

    Parameters
    ----------
    settings : DraftSettings
    folder : str or PathLike
    report : Callable[[str], None]
        called with what is being done
    check : Callable[[Target], None], optional
        refuses a target
    max_length : int, optional
        most tokens of a prompt and its text

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError, TextError
        before there is a folder, where the target or the prompts are at fault
    BusyError
        where another process is at work on it
    """
    began, folder = time.monotonic(), check_path("folder", folder)
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder}: is there already: choose another name")
    work = folder.with_name(f"{folder.name}.run")
    report(f"loading {settings.model}")
    target = Target.load(settings.model, settings.threads)
    check(target)
    if settings.prompts is not None and next(prompts_in(settings.prompts, target), None) is None:
        raise DataError(f"{settings.prompts}: holds no prompt")
    config = json.loads(json.dumps({"settings": asdict(replace(settings, threads=None))}))
    begun = work.exists()
    with RunFolder(work, None if begun else config, AGAIN) as run:
        if begun and run.config.get("settings") != config["settings"]:
            raise CheckpointError(f"{work}: was begun with other settings; remove it, or choose another name")
        clock = WorkTime(work / "time.json", began)
        lots = Lots(settings, target, work / "texts", clock, max_length)
        if lots.texts:
            report(f"{lots.tokens:,} tokens have been written already")
        yield Job(folder, target, run, clock, lots)
    if os.path.lexists(folder):
        shutil.rmtree(work, ignore_errors=True)
