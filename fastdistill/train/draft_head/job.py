"""A target distils its own draft head, within so many minutes: it writes texts, the head learns from them, and is judged on some."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from fastdistill.arguments import check_path
from fastdistill.errors import CheckpointError, DataError
from fastdistill.train.draft_head.acceptance import Acceptance
from fastdistill.train.draft_head.lots import Lots
from fastdistill.train.draft_head.prompts import prompts_in
from fastdistill.train.draft_head.settings import HeadSettings
from fastdistill.train.draft_head.target import Target
from fastdistill.train.draft_head.training import HeadTraining
from fastdistill.train.draft_head.work import AGAIN, WorkTime
from fastdistill.train.loop import Record
from fastdistill.train.runs import RunFolder


def distill_head(
    settings: HeadSettings,
    folder: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = lambda words: None,
    writing: Callable[[float, int], None] = lambda share, tokens: None,
    training: Callable[[int], Callable[[Record], None]] = lambda steps: lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> Acceptance | None:
    """Make a draft head, as a folder for `HeadDrafter`; what an interrupt leaves beside it the same call goes on with.

    Parameters
    ----------
    settings : HeadSettings
    folder : str or PathLike
        to make; until it is there, FOLDER.run holds the work
    report : Callable[[str], None], optional
        called with what is being done
    writing : Callable[[float, int], None], optional
        called with the share that is written, and how many tokens that is
    training : Callable[[int], Callable[[Record], None]], optional
        called with how many steps there will be: what is called with the metrics of each
    stop : Callable[[], bool], optional
        asked now and then whether to keep what there is, and end

    Returns
    -------
    Acceptance or None
        on texts that it has not learnt from; None: it was asked to stop

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError, TextError
    BusyError
        where another process is at work on it
    """
    began = time.monotonic()
    folder = check_path("folder", folder)
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder}: is there already: choose another name")
    work = folder.with_name(f"{folder.name}.run")
    report(f"loading {settings.model}")
    target = Target.load(
        settings.model, settings.threads
    )  # what is wrong with it, or with the prompts, leaves no folder
    if settings.prompts is not None and next(prompts_in(settings.prompts, target), None) is None:
        raise DataError(f"{settings.prompts}: holds no prompt")
    config = {"settings": asdict(replace(settings, threads=None))}
    begun = work.exists()
    with RunFolder(work, None if begun else config, AGAIN) as run:
        if begun and run.config.get("settings") != json.loads(json.dumps(config))["settings"]:
            raise CheckpointError(f"{work}: was begun with other settings; remove it, or choose another name")
        clock = WorkTime(work / "time.json", began)
        lots = Lots(settings, target, work / "texts", clock)
        if lots.texts:
            report(f"{lots.tokens:,} tokens have been written already")
        if not lots.write(writing, stop):
            return None
        report(f"{lots.texts:,} texts of {lots.tokens:,} tokens; the head's first weights")
        head = HeadTraining(settings, target, lots.read())
        if not head.train(run, clock, training, stop):
            return None
        found = head.save(folder)
    shutil.rmtree(work, ignore_errors=True)
    return found
