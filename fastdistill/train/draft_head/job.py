"""A target distils its own draft head, within so many minutes: it writes texts, the head learns from them, and is judged on some."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastdistill.train.draft_head.acceptance import Acceptance
from fastdistill.train.draft_head.settings import HeadSettings
from fastdistill.train.draft_head.training import HeadTraining
from fastdistill.train.loop import Record
from fastdistill.train.own_texts.job import begin


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
    with begin(settings, folder, report) as job:
        if not job.lots.write(writing, stop):
            return None
        report(f"{job.lots.texts:,} texts of {job.lots.tokens:,} tokens; the head's first weights")
        head = HeadTraining(settings, job.target, job.lots.read())
        return head.save(job.folder) if head.train(job.run, job.clock, training, stop) else None
