"""A target distils its own shallow student, within so many minutes: it writes texts, a part of itself learns from them, and is judged on some."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np

from fastdistill.arguments import check_path
from fastdistill.checkpoint import open_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, DataError, UnsupportedError
from fastdistill.files import read_json
from fastdistill.models import plan_of, quantize_folder
from fastdistill.models.cut_folder import cut_folder
from fastdistill.runtime.network import Network
from fastdistill.train.data.dataset import Dataset
from fastdistill.train.draft_head.job import AGAIN, HELD_OUT, Report, Target, _keep, _of_files, _prompts, _writing_to
from fastdistill.train.loop import Record
from fastdistill.train.runs import RunFolder
from fastdistill.train.student.acceptance import StudentAcceptance, student_acceptance
from fastdistill.train.student.examples import joined, load_examples, save_examples, some_of, write_examples
from fastdistill.train.student.pupil import Pupil
from fastdistill.train.student.settings import StudentSettings

TOGETHER = 32  # prompts whose texts are written at once, and kept
_LEAST_ROOM = 16  # tokens of a text


def distill_student(
    settings: StudentSettings,
    folder: str | os.PathLike[str],
    *,
    report: Report = lambda words: None,
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
    folder = check_path("folder", folder)
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder}: is there already: choose another name")
    work = folder.with_name(f"{folder.name}.run")
    report(f"loading {settings.model}")
    target = Target.load(settings.model, settings.threads)  # what is wrong with it leaves no folder behind
    _check(settings, target)
    config = {"settings": json.loads(json.dumps(asdict(replace(settings, threads=None))))}
    begun = work.exists()
    with RunFolder(work, None if begun else config, AGAIN) as run:
        if begun and run.config.get("settings") != config["settings"]:
            raise CheckpointError(f"{work}: was begun with other settings; remove it, or choose another name")
        data = _written(settings, target, work, report, writing, stop)
        if data is None:
            return None
        held = np.arange(len(data)) % HELD_OUT == HELD_OUT - 1
        unseen = some_of(data, np.flatnonzero(held) if held.any() else np.array([len(data) - 1]))
        seen = some_of(data, np.flatnonzero(~held))
        report(f"{len(data):,} texts of {int(data.predicted.sum()):,} tokens; {settings.layers} layers learn from them")
        pupil = _taught(settings, target, seen, run, training, stop)
        if pupil is None:
            return None
        pupil.save(work / "student")
        quantize_folder(work / "student", folder, settings.format)
        with open_checkpoint(folder) as checkpoint:
            student = Network(plan_of(checkpoint), checkpoint.tensors, None, settings.threads)
        found = student_acceptance(student, target.network, unseen, settings.rows)
    shutil.rmtree(work, ignore_errors=True)
    return found


def _check(settings: StudentSettings, target: Target) -> None:
    plan = target.plan
    if not plan.causal or "logits" not in plan.outputs:
        raise UnsupportedError(f"a student is of a causal model with a head, which {settings.model} is not")
    if settings.layers >= plan.num_layers:
        raise ArgumentError(f"layers must be fewer than the target's {plan.num_layers}, got {settings.layers}")
    if settings.prompts is not None and next(_of_files(settings.prompts, target), None) is None:
        raise DataError(f"{settings.prompts}: holds no prompt")


def _written(
    settings: StudentSettings,
    target: Target,
    work: Path,
    report: Report,
    writing: Callable[[float, int], None],
    stop: Callable[[], bool],
) -> Dataset | None:
    """What the target writes in its share of the minutes, lot by lot; those of an earlier call are taken as they are."""
    place = work / "texts"
    place.mkdir(exist_ok=True)
    lots = [load_examples(path) for path in sorted(place.glob("*.safetensors"))]
    if lots:
        report(f"{sum(int(lot.predicted.sum()) for lot in lots):,} tokens have been written already")
    began, seconds = time.monotonic(), 60 * settings.minutes * settings.writing
    spent, done = read_json(place / "time.json")["seconds"] if lots else 0.0, place / "done"
    prompts = islice(roomy_prompts(settings, target), len(lots) * TOGETHER, None)
    while not done.exists():
        taken = spent + time.monotonic() - began
        lot = [*islice(prompts, TOGETHER)] if not lots or taken < seconds else []
        if not lot:
            done.touch()
            break
        if stop():
            return None
        first = len(lots) * TOGETHER
        lots.append(
            write_examples(
                target, lot, seed=settings.seed, temperature=settings.temperature if len(lots) % 3 == 2 else 0.0,
                max_tokens=settings.max_tokens, max_length=settings.rows, numbers=range(first, first + len(lot)),
            )
        )  # fmt: skip
        taken = spent + time.monotonic() - began
        _keep(place / "time.json", {"seconds": taken})
        with _writing_to(place):
            save_examples(lots[-1], place / f"{len(lots):06}.safetensors")
        writing(min(taken / seconds, 1.0), sum(int(lot.predicted.sum()) for lot in lots))
    if sum(map(len, lots)) < 2:
        raise DataError(
            f"{settings.model}: {sum(map(len, lots))} texts have come, of which one is to learn from and one to judge by: prompts must "
            f"leave room for {_LEAST_ROOM} tokens in rows = {settings.rows}"
        )
    return joined(lots)


def roomy_prompts(settings: StudentSettings, target: Target) -> Iterator[list[int]]:
    """Prompts that leave room for a text in a batch."""
    return (prompt for prompt in _prompts(settings, target) if len(prompt) + _LEAST_ROOM <= settings.rows)  # type: ignore[arg-type]


def _taught(
    settings: StudentSettings,
    target: Target,
    data: Dataset,
    run: RunFolder,
    training: Callable[[int], Callable[[Record], None]],
    stop: Callable[[], bool],
) -> Pupil | None:
    """The student behind its last step, and behind a reference's where it has one; None: it was asked to stop."""
    cut = run.path / "cut"
    cut_folder(target.folder, cut, range(settings.layers), overwrite=True)

    def pupil(reference: Network | None = None) -> Pupil:
        return Pupil(settings, cut, target.network, data, target.end_tokens, reference)

    if settings.selection is None:
        student = pupil()
        steps = _steps(settings, run, student)
        return student if student.train(steps, run, training(steps), stop) else None
    teacher = pupil()
    student = pupil(teacher.engine.network())
    steps = _steps(settings, run, teacher, student)
    place = run.path / "reference"
    with RunFolder(place, None if place.exists() else {"steps": steps}, AGAIN) as first:
        if not teacher.train(steps, first, training(steps), stop):
            return None
    return student if student.train(steps, run, training(steps), stop) else None


def _steps(settings: StudentSettings, run: RunFolder, *pupils: Pupil) -> int:
    """Steps of each that the time behind writing allows, found once."""
    if settings.steps is not None:
        return settings.steps
    file = run.path / "steps.json"
    if not file.exists():
        seconds = 60 * settings.minutes * (1 - settings.writing)
        steps = int(seconds / (1.08 * sum(pupil.seconds() for pupil in pupils)))
        _keep(file, {"steps": max(steps, 1)})
    return int(read_json(file)["steps"])
