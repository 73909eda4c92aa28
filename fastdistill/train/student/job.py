"""A target distils its own shallow student, within so many minutes: it writes texts, a part of itself learns from them, and is judged on some."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from fastdistill.checkpoint import open_checkpoint
from fastdistill.errors import ArgumentError, DataError
from fastdistill.files import read_json
from fastdistill.models import plan_of, quantize_folder
from fastdistill.models.cut_folder import cut_folder
from fastdistill.runtime.network import Network
from fastdistill.train.data.dataset import Dataset
from fastdistill.train.loop import Record
from fastdistill.train.own_texts.job import Job, begin
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.texts import held_out
from fastdistill.train.own_texts.work import AGAIN, keep, writing_to
from fastdistill.train.runs import RunFolder
from fastdistill.train.student.acceptance import StudentAcceptance, student_acceptance
from fastdistill.train.student.examples import examples_of, some_of
from fastdistill.train.student.settings import StudentSettings
from fastdistill.train.student.training import StudentTraining


def distill_student(
    settings: StudentSettings,
    folder: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = lambda words: None,
    writing: Callable[[float, int], None] = lambda share, tokens: None,
    training: Callable[[int], Callable[[Record], None]] = lambda steps: lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> StudentAcceptance | None:
    """Make a shallow student, as a folder for `load` and `ModelDrafter`; what an interrupt leaves beside it the same call goes on with.

    Parameters
    ----------
    settings : StudentSettings
    folder : str or PathLike
        to make; until it is there, FOLDER.run holds the work
    report : Callable[[str], None], optional
        called with what is being done
    writing : Callable[[float, int], None], optional
        called with the share that is written, and how many tokens that is
    training : Callable[[int], Callable[[Record], None]], optional
        called with how many steps there will be, of a reference first where there is one: what is called with the metrics of each
    stop : Callable[[], bool], optional
        asked now and then whether to keep what there is, and end

    Returns
    -------
    StudentAcceptance or None
        on texts that it has not learnt from; None: it was asked to stop

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError, TextError
    BusyError
        where another process is at work on it
    """
    with begin(settings, folder, report, lambda target: _check(settings, target), settings.rows) as job:
        if not job.lots.write(writing, stop):
            return None
        data = examples_of(job.lots.read(states=False))
        if len(data) < 2:
            raise DataError(
                f"{settings.model}: a student needs a text to learn from and another to judge by, got {len(data)}"
            )
        seen, unseen = (some_of(data, np.flatnonzero(which)) for which in held_out(len(data)))
        report(f"{len(data):,} texts of {int(data.predicted.sum()):,} tokens; {settings.layers} layers learn from them")
        learner = _taught(settings, job, seen, unseen, training, stop)
        if learner is None:
            return None
        learnt, kept = (job.run.path / name for name in ("student", "kept"))
        learner.save(learnt)
        quantize_folder(learnt, kept, settings.format, overwrite=True)
        with open_checkpoint(kept) as checkpoint:
            student = Network(plan_of(checkpoint), checkpoint.tensors, None, settings.threads)
        found = student_acceptance(student, job.target.network, unseen, settings.rows)
        with writing_to(job.folder):
            kept.rename(job.folder)
        return found


def _check(settings: StudentSettings, target: Target) -> None:
    if settings.layers >= target.plan.num_layers:
        raise ArgumentError(f"layers must be fewer than the target's {target.plan.num_layers}, got {settings.layers}")


def _taught(
    settings: StudentSettings,
    job: Job,
    data: Dataset,
    unseen: Dataset,
    training: Callable[[int], Callable[[Record], None]],
    stop: Callable[[], bool],
) -> StudentTraining | None:
    """The student behind its last step, and behind a reference's where it has one; None: it was asked to stop."""
    run, target = job.run, job.target
    cut = run.path / "cut"
    cut_folder(target.folder, cut, range(settings.layers), overwrite=True)

    def learner(reference: Network | None = None) -> StudentTraining:
        return StudentTraining(settings, cut, target.network, data, target.end_tokens, reference)

    if settings.selection is None:
        student = learner()
        steps = _steps(settings, job, unseen, student)
        return student if student.train(steps, run, training(steps), stop) else None
    teacher = learner()
    student = learner(teacher.engine.network())
    steps = _steps(settings, job, unseen, teacher, student)
    place = run.path / "reference"
    with RunFolder(place, None if place.exists() else {"steps": steps}, AGAIN) as first:
        if not teacher.train(steps, first, training(steps), stop):
            return None
    return student if student.train(steps, run, training(steps), stop) else None


def _steps(settings: StudentSettings, job: Job, unseen: Dataset, *learners: StudentTraining) -> int:
    """Steps of each that the time behind writing allows, found once."""
    if settings.optimiser_steps is not None:
        return settings.optimiser_steps
    file = job.run.path / "steps.json"
    if not file.exists():
        seconds = [1.08 * learner.seconds() for learner in learners]
        judging = len(unseen.tokens) / settings.rows * seconds[-1]  # less than a step's work a batch
        left = 60 * settings.minutes - job.clock.seconds - judging
        keep(file, {"steps": max(int(left / sum(seconds)), 1)})
    return int(read_json(file)["steps"])
