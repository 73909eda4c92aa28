"""What settings say, made: the model, its data, its objective and its optimiser, ready to be trained."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill import __version__
from fastdistill.checkpoint import eos_token_ids, open_checkpoint
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.fetch import find_folder
from fastdistill.messages import listed, warn
from fastdistill.models import Plan, plan_of
from fastdistill.runtime.network import Network
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.train.batch import Batch, Objective
from fastdistill.train.data import Batches, Dataset, OnPolicy, Teacher, open_teacher_file, read_data, write_teacher_file
from fastdistill.train.engine import Engine
from fastdistill.train.loop import Record, Trained, train
from fastdistill.train.lora import LoRA, save_adapter, with_lora
from fastdistill.train.objectives import objective
from fastdistill.train.optimisers import EMA, AdamW, Optimiser, Schedule
from fastdistill.train.patterns import matching
from fastdistill.train.runs import RunFolder, Settings
from fastdistill.train.saved_model import save_model, trainable

Report = Callable[[str], None]
ADAPTER = "adapter"  # beside the model
_READ = 1 << 22  # bytes at a time


@dataclass
class Job:
    """A run before its first step; `make_job` makes it.

    Attributes
    ----------
    settings : Settings
        it was made of
    folder : Path
        of the model that it begins with
    plan : Plan
        of that model
    lora : LoRA | None
        with pairs of low rank beside it, which alone are trained
    engine : Engine
        with the weights that are trained, as they are now
    optimiser : AdamW
        of these
    schedule : Schedule
        of the learning rate
    average : EMA | None
        of the parameters, which is what is written at the end
    objective : Objective
        which their steps minimise
    batches : Batches or OnPolicy
        of which a step takes `settings.accumulate`
    evaluation : Sequence[Batch]
        held out
    steps : int | None
        of the run; None: minutes end it
    digests : Mapping[str, str]
        SHA-256 of what was read, by what it is
    """

    settings: Settings
    folder: Path
    plan: Plan
    lora: LoRA | None
    engine: Engine
    optimiser: Optimiser
    schedule: Schedule
    average: EMA | None
    objective: Objective
    batches: Batches | OnPolicy
    evaluation: Sequence[Batch]
    steps: int | None
    digests: Mapping[str, str]

    @property
    def config(self) -> dict[str, Any]:
        """What config.json of the run says."""
        versions = {"fastdistill": __version__, "numpy": np.__version__}
        return {"settings": self.settings.to_json(), "steps": self.steps, "sha256": self.digests, "versions": versions}

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse to go on with a run whose model or data has changed since it began.

        Raises
        ------
        CheckpointError
        """
        wanted, then = (
            found if isinstance(found := config.get(name), Mapping) else {} for name in ("sha256", "versions")
        )
        changed = [name for name, digest in self.digests.items() if wanted.get(name) != digest]
        if changed:
            paths = ", ".join(f"{name} {getattr(self.settings, name)}" for name in changed)
            raise CheckpointError(f"the run cannot go on as it began: changed since then: {paths}")
        if other := [
            f"{name} {then.get(name)}" for name, now in self.config["versions"].items() if then.get(name) != now
        ]:
            warn(f"the run began with {listed(other)}: it may not end in the same bits")

    def train(
        self, run: RunFolder, report: Callable[[Record], None] | None = None, stop: Callable[[], bool] | None = None
    ) -> Trained:
        """`train` by the settings, in a run's folder."""
        settings = self.settings
        every = settings.evaluate_every or (math.ceil(self.steps / 10) if self.steps is not None else 100)
        return train(
            self.engine,
            self.optimiser,
            self.step_batches,
            self.objective,
            learning_rate=self.schedule,
            steps=self.steps,
            minutes=settings.minutes,
            clip=settings.clip or None,
            average=self.average,
            evaluation=self.evaluation,
            evaluate_every=every,
            run=run,
            save_every=settings.save_every,
            save_minutes=settings.save_minutes,
            report=report,
            stop=stop,
        )

    def save(self, folder: Path) -> None:
        """Write the model as it is now, or its average, as a folder to load; of pairs of low rank one where they are added, and `adapter` beside it."""
        with self.average.swapped() if self.average is not None else nullcontext():
            parameters = self.engine.parameters
            if self.lora is None:
                save_model(self.plan, parameters, self.folder, folder)
                return
            with open_checkpoint(self.folder) as checkpoint:
                save_model(self.plan, self.lora.merged(parameters, checkpoint.tensors), self.folder, folder)
            try:
                save_adapter(self.lora, parameters, self.settings.model, folder.with_name(ADAPTER))
            except UnsupportedError as error:  # a model whose files hold matrices otherwise: the whole one is there
                warn(f"there is no {ADAPTER}/: {error}")

    def step_batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step, from 0; of the last step of an epoch's end fewer."""
        accumulate = self.settings.accumulate
        end = (step + 1) * accumulate
        if self.settings.epochs is not None:
            end = min(end, self.batches.count(self.settings.epochs))
        drawn = (self.batches[number] for number in range(step * accumulate, end))
        return [
            part for batch in drawn for part in batch.split(self.settings.rows)
        ]  # what the student writes may be longer


def make_job(settings: Settings, report: Report = lambda words: None) -> Job:
    """Read what the settings name, and make what trains it.

    Parameters
    ----------
    settings : Settings
    report : Callable[[str], None], optional
        called with what is being done

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError, TextError
    """
    of_objective = dict(settings.objective_options)
    if settings.temperature != 1:
        of_objective["temperature"] = settings.temperature
    objective(settings.objective, **of_objective)  # says what is wrong with them before anything is read
    if settings.teacher is None and settings.objective not in ("cross_entropy", "entropy"):
        raise ArgumentError(
            f"objective {settings.objective} needs a teacher, a model or a file of its answers; got none"
        )
    folder = find_folder(settings.model)
    tokenizer = Tokenizer(folder)
    with open_checkpoint(folder) as checkpoint:
        plan = plan_of(checkpoint)
        data = _data(settings.data, settings, tokenizer, plan, report)
        held_out = None
        if settings.evaluation is not None:
            held_out = _data(settings.evaluation, settings, tokenizer, plan, report)
        file, beside = None, None
        if settings.teacher is not None:
            if Path(settings.teacher).is_file():
                file = open_teacher_file(settings.teacher, data)
            else:
                report(f"loading the teacher {settings.teacher}")
                beside = Teacher(_network(settings.teacher, settings.threads))
        if held_out is not None and file is not None:
            raise ArgumentError("evaluation needs a teacher that runs: a file has its answers to the data alone")
        made = objective(settings.objective, teacher=beside, **of_objective)
        report(f"loading {folder}")
        lora = None
        tensors = checkpoint.tensors
        if settings.lora is not None:
            lora = with_lora(plan, settings.lora, settings.alpha, settings.targets)
            tensors, names = {**tensors, **lora.tensors(settings.seed)}, lora.trained
        else:
            names = _trained(plan, settings, report)
        engine = Engine(
            plan if lora is None else lora.plan, tensors, names, format=settings.format, rows=settings.rows, checkpoint=settings.checkpoint,
            threads=settings.threads,
        )  # fmt: skip
        ends = eos_token_ids(checkpoint.config, checkpoint.generation_config)
    mixed = settings.on_policy > 0
    of_data = Batches(data, settings.rows, seed=settings.seed, teacher=file, prompts=mixed)
    batches = OnPolicy(of_data, engine.network, settings.on_policy, end_tokens=ends) if mixed else of_data
    steps = settings.steps
    if settings.epochs is not None:
        steps = math.ceil(batches.count(settings.epochs) / settings.accumulate)
    digests = {"model": _digest(folder), "data": data.digest}
    evaluation: list[Batch] = []
    if held_out is not None:
        digests["evaluation"] = held_out.digest
        every = Batches(held_out, settings.rows)
        evaluation = [every[number] for number in range(every.count())]
    if settings.teacher is not None:
        digests["teacher"] = _digest(Path(settings.teacher) if file is not None else find_folder(settings.teacher))
    assert settings.schedule is not None and settings.learning_rate is not None  # they are found where none is given
    threads = settings.threads
    optimiser = AdamW(engine.parameters, weight_decay=settings.weight_decay, threads=threads)
    schedule = Schedule(settings.schedule, settings.learning_rate, steps, settings.warmup_of(steps))
    average = EMA(engine.parameters, settings.average, threads=threads) if settings.average else None
    return Job(
        settings, folder, plan, lora, engine, optimiser, schedule, average, made, batches, evaluation, steps, digests
    )


def teach(
    settings: Settings,
    path: str | os.PathLike[str],
    k: int = 50,
    report: Report = lambda words: None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write what a model says of data to a file, for a run whose settings read the data as these do; how many tokens it has.

    What an error or an interrupt leaves, the same call goes on with.

    Parameters
    ----------
    settings : Settings
        the teacher is their model, in their format
    path : str or PathLike
        of the file, which is not there yet
    k : int, default 50
        tokens kept of each row
    report : Callable[[str], None], optional
        called with what is being done
    progress : Callable[[int, int], None], optional
        called with (rows so far, rows in all)

    Raises
    ------
    ArgumentError, CheckpointError, UnsupportedError, DataError, TextError, OSError
    """
    if os.path.lexists(path):
        raise CheckpointError(f"{os.fspath(path)}: is there already: choose another name")
    report(f"loading {settings.model}")
    teacher = _network(settings.model, settings.threads, settings.format)
    tokenizer = Tokenizer(find_folder(settings.model))
    data = _data(settings.data, settings, tokenizer, teacher.plan, report)
    write_teacher_file(teacher, data, path, k, name=Path(settings.model).name, resume=True, progress=progress)
    return len(data.tokens)


def _data(path: str, settings: Settings, tokenizer: Tokenizer, plan: Plan, report: Report) -> Dataset:
    report(f"reading {path}")
    max_length = settings.max_length or min(settings.rows, plan.long_beyond or plan.max_positions)
    return read_data(path, tokenizer, max_length=max_length, train_on=settings.train_on)


def _trained(plan: Plan, settings: Settings, report: Report) -> list[str]:
    """Names of the weights that are trained, where there are no pairs."""
    stored = trainable(plan)
    frozen = matching("freeze", settings.freeze, stored, "weights") if settings.freeze is not None else []
    asked = matching("train", settings.train, stored, "weights") if settings.train is not None else stored
    names = [name for name in asked if name not in frozen]
    if not names:
        raise ArgumentError("train and freeze must leave weights to train, got patterns that leave none")
    if len(names) < len(stored):
        report(f"trained are {len(names)} of {len(stored)} weights: {listed(names, 4)}")
    return names


def _network(name: str, threads: int | None, format: str | None = None) -> Network:
    with open_checkpoint(find_folder(name)) as checkpoint:
        return Network(plan_of(checkpoint), checkpoint.tensors, format, threads)


def _digest(path: Path) -> str:
    """Of a file, or of a model's folder: its configs and its weights."""
    digest = sha256()
    configs = (each for each in (path / "config.json", path / "generation_config.json") if each.exists())
    paths = [path] if path.is_file() else sorted([*configs, *path.glob("*.safetensors")])
    try:
        for each in paths:
            digest.update(f"{each.name}\0{os.path.getsize(each)}\0".encode())
            with each.open("rb") as file:
                while data := file.read(_READ):
                    digest.update(data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
