"""Shallow students that draft for their target: none, plain KL, DistillSpec and AdaSPEC on one budget, acceptance by depth.

    python -m bench distilled_student spelling    small models that learn to spell from nothing (bench/lib/spelling.py), with seeds
    python -m bench distilled_student model       the first layers of a real model, on texts that it writes

Every student begins as the same first layers of the target, learns from the same prompts for as many steps, and is judged
on prompts that none has seen: by depth, how often a guess stood whose parents did, in exact greedy speculation; and how
much of its law is the target's, 1 - TV.  AdaSPEC's reference is the student of plain KL.  It costs as many steps again, so
there is also an AdaSPEC whose reference and student have half of the steps each.
"""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.answers import Answer, Guesses, counted
from bench.lib.models import add_model_argument
from bench.lib.plot import picture
from bench.lib.report import Report
from bench.lib.spelling import END, MOST, spellings
from bench.lib.writing import Task, Writing, add_writing_arguments
from bench.studies import jacobi_forcing
from bench.studies.distilled_student_plot import draw
from fastdistill.checkpoint import Tensor, open_checkpoint, write_checkpoint
from fastdistill.errors import ArgumentError
from fastdistill.models import plan_of
from fastdistill.models.cut_folder import cut_folder
from fastdistill.runtime.network import Network
from fastdistill.train.data.dataset import Dataset
from fastdistill.train.own_texts import Texts, write_texts
from fastdistill.train.own_texts.prompts import LEAST_ROOM, prompts_of
from fastdistill.train.own_texts.target import Target
from fastdistill.train.runs import Interruption, RunFolder
from fastdistill.train.student import StudentAcceptance, StudentSettings, StudentTraining, student_acceptance
from fastdistill.train.student.examples import examples_of, some_of

NONE, KL, HALF_KL, HALF = "none", "plain KL", "half of plain KL", "AdaSPEC, half each"
ON_POLICY, FRACTION = 0.5, 0.4
ARMS: dict[str, dict[str, Any]] = {  # what differs from plain KL
    KL: {},
    "DistillSpec, KL": {"on_policy": ON_POLICY},
    "DistillSpec, JSD": {"on_policy": ON_POLICY, "objective": "jsd"},
    "DistillSpec, TV": {"on_policy": ON_POLICY, "objective": "total_variation"},
    "AdaSPEC": {"selection": FRACTION},
    HALF: {"selection": FRACTION},
}
AHEAD = 4  # guesses of a chain
QUICK = {
    "unseen": 8,
    "questions": 4,
    "tokens": 32,
    "repetitions": 1,
    "steps": 10,
    "texts": 32,
    "target_steps": 50,
    "seeds": 1,
}
DEFAULTS = {
    "spelling": {
        "steps": 600,
        "texts": 512,
        "layers": 1,
        "rate": 3e-3,
        "unseen": 200,
        "questions": 24,
        "tokens": MOST,
        "seeds": 3,
    },
    "model": {
        "steps": 60,
        "texts": 96,
        "layers": 4,
        "rate": 1e-3,
        "unseen": 16,
        "questions": 8,
        "tokens": 64,
        "seeds": 1,
    },
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("part", choices=DEFAULTS, help="see the head of the study")
    add_model_argument(parser)
    add_writing_arguments(parser, {}, "a few steps and prompts of everything")
    parser.set_defaults(repetitions=1)
    numbers = {
        "steps": "of a student",
        "texts": "of the target that they learn from",
        "layers": "of a student, the first ones",
        "unseen": "texts that they are judged along",
        "questions": "of their prompts, from which they speculate",
        "tokens": "most new tokens of a text",
        "seeds": "repetitions of everything, the target's learning included",
    }
    for name, about in numbers.items():
        defaults = ", ".join(f"{each[name]} {part}" for part, each in DEFAULTS.items())
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{about} (default: {defaults})")
    parser.add_argument("--rate", type=float, metavar="R", help="the highest of learning")
    parser.add_argument(
        "--target-steps", type=int, default=1000, metavar="N", help="in which a target learns to spell (default: %(default)s)"
    )  # fmt: skip
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=list(ARMS),
        metavar="ARM",
        help=f"of {', '.join(ARMS)} (default: all)",
    )
    parser.add_argument("--work", metavar="FOLDER", help="what is made is kept there, and found again by the next call")
    parser.add_argument("--plot", type=picture, metavar="FILE.png", help="a picture of what was found")


@dataclass(frozen=True, eq=False)
class Case:
    """A target, what it wrote for students to learn from and to be judged on, and how they learn."""

    target: Target
    seen: Dataset
    unseen: Dataset
    settings: StudentSettings


@dataclass(frozen=True, eq=False)
class Judged:
    """A student: along texts, and in speculation on the same prompts."""

    along: StudentAcceptance
    answers: list[Answer]


class Bench(Writing):
    def __init__(self, options: Namespace, report: Report) -> None:
        super().__init__(options, report)
        self.found: dict[str, list[Judged]] = defaultdict(list)

    def measure(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            for seed in range(self.options.seeds):
                work = Path(self.options.work or place) / f"{self.options.part} {seed}"
                work.mkdir(parents=True, exist_ok=True)
                self.check_same(work / "asked.json")
                case = (self.spelling if self.options.part == "spelling" else self.real)(work, seed)
                if not (work / NONE).exists():
                    cut_folder(case.target.folder, work / NONE, range(self.options.layers))
                folders = {name: self.student(name, case, work) for name in (NONE, *self.options.arms)}
                for name, folder in folders.items():
                    self.progress.group(f"seed {seed}: {name} is judged")
                    self.judge(name, case, folder)

    def check_same(self, file: Path) -> None:
        """Refuse a folder whose students were asked otherwise."""
        names = ("model", "steps", "texts", "unseen", "layers", "tokens", "rate", "target_steps")
        asked = {name: str(getattr(self.options, name)) for name in names}
        if not file.exists():
            file.write_text(json.dumps(asked), "utf-8")
        elif (found := json.loads(file.read_text("utf-8"))) != asked:
            raise ArgumentError(
                f"--work {self.options.work} holds students of {found}, expected {asked}: name another folder"
            )

    def student(self, name: str, case: Case, work: Path) -> Path:
        """The folder of an arm's student behind its last step."""
        steps, reference = self.options.steps, None
        if name in (HALF, HALF_KL):
            steps //= 2
        if "selection" in ARMS.get(name, {}):
            reference = network_of(self.student(HALF_KL if name == HALF else KL, case, work), self.threads)
        if not (work / name).exists():
            self.progress.group(name)
            target, settings = case.target, replace(case.settings, **ARMS.get(name, {}))
            learner = StudentTraining(settings, work / NONE, target.network, case.seen, target.end_tokens, reference)
            place = work / f"{name}.run"
            with RunFolder(place, None if place.exists() else {}, "the same command") as run, Interruption() as stop:
                if not learner.train(steps, run, lambda record: self.progress.step(record["step"], steps), stop):
                    raise KeyboardInterrupt
            learner.save(work / name)
        return work / name

    def judge(self, name: str, case: Case, folder: Path) -> None:
        """Of a real target it guesses as it would be kept, in q8."""
        along = student_acceptance(
            network_of(folder, self.threads), case.target.network, case.unseen, case.settings.rows
        )
        student = network_of(folder, self.threads, "q8" if self.options.part == "model" else None)
        decoder, answers = fd.Speculative(fd.ModelDrafter(student), max_draft=AHEAD), []
        for number in range(min(self.options.questions, len(case.unseen))):
            rows = case.unseen.rows(number)
            prompt = case.unseen.tokens[rows.start : rows.start + case.unseen.prompts[number]].tolist()
            session = case.target.network.session(len(prompt) + self.options.tokens)
            task = Task(
                f"{name} {number}",
                prompt,
                lambda taps, session=session: session,
                self.options.tokens,
                case.target.end_tokens,
            )
            answers += self.answer(task, {name: decoder}, self.options.repetitions, 0)
        self.found[name].append(Judged(along, answers))

    # ---- targets ----

    def spelling(self, work: Path, seed: int) -> Case:
        """One that learns its task here."""
        if not (work / "target").exists():
            engine = jacobi_forcing.untrained(Namespace(seed=seed, block=1, threads=[self.threads]))
            jacobi_forcing.learn(engine, self.options.target_steps, np.random.default_rng(seed), self.progress)
            learnt = engine.parameters.items()
            tensors = [Tensor(name, "f32", each.shape, each.to_array()) for name, each in learnt]
            write_checkpoint(work / "target", jacobi_forcing.config().raw, tensors)
        network = network_of(work / "target", self.threads)
        target: Any = SimpleNamespace(folder=work / "target", network=network, end_tokens=frozenset({END}))
        drawn = spellings(self.options.texts + self.options.unseen, np.random.default_rng([seed, 1]))
        settings = self.settings("target", seed, rows=1024)
        return self.case(target, [prompt.tolist() for prompt, _ in drawn], settings, work)

    def real(self, work: Path, seed: int) -> Case:
        """One that was made elsewhere, asked what comes with the package."""
        settings = self.settings(str(self.options.model), seed)
        target = Target.load(settings.model, self.threads)
        count = self.options.texts + self.options.unseen
        most = settings.rows - settings.max_tokens + LEAST_ROOM  # a prompt and its text are one batch at most
        return self.case(target, [*islice(prompts_of(target, None, seed, most), count)], settings, work)

    def settings(self, model: str, seed: int, **more: Any) -> StudentSettings:
        options = self.options
        return StudentSettings(
            model=model, layers=options.layers, max_tokens=options.tokens, learning_rate=options.rate, seed=seed,
            threads=self.threads, **more,
        )  # fmt: skip

    def case(self, target: Target, prompts: list[list[int]], settings: StudentSettings, work: Path) -> Case:
        """Greedy texts: along them a chain's guesses stand as in speculation."""
        if not (work / "texts").exists():
            self.progress.group("the target writes")
            write_texts(target, prompts, max_tokens=settings.max_tokens).save(work / "texts")
        data = examples_of(Texts.load(work / "texts", states=False))
        order = np.arange(len(data))
        unseen = order >= len(data) - self.options.unseen
        return Case(target, some_of(data, order[~unseen]), some_of(data, order[unseen]), settings)


def network_of(folder: Path, threads: int, format: str | None = None) -> Network:
    with open_checkpoint(folder) as checkpoint:
        return Network(plan_of(checkpoint), checkpoint.tensors, format, threads)


def table(bench: Bench, report: Report) -> None:
    for name, all_of_it in bench.found.items():
        if not all(each.answers for each in all_of_it):
            continue
        answers = [answer for each in all_of_it for answer in counted(each.answers)]
        guesses = Guesses.of(answers, name)
        cells: dict[str, Any] = {
            "student": name,
            **{f"guess {depth}": guesses.at(depth) for depth in range(1, AHEAD + 1)},
            "tokens a forward": guesses.tokens_per_forward,
            "1 - TV": spread([each.along.overlap for each in all_of_it]),
            "first guess, by seed": spread([each.along.ranks[0, 0] for each in all_of_it]),
        }
        if bench.options.part == "model":
            cells["time"] = float(np.median([answer.speed_up(name).median for answer in answers]))
        report.row(**cells)


def spread(values: list[float]) -> str:
    """The mean in percent, and from where to where."""
    low, middle, high = (100 * each for each in (min(values), float(np.mean(values)), max(values)))
    return f"{middle:.1f} %" + (f" ({low:.1f}-{high:.1f})" if len(values) > 1 else "")


def run(options: Namespace) -> Report:
    report = Report(__doc__.partition("\n\n")[0], markdown=True)
    for name, value in DEFAULTS[options.part].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    bench = Bench(options, report)
    bench.run(QUICK)
    table(bench, report)
    report.note(
        f"{options.seeds} seeds, {options.steps} steps of {options.layers} layers on {options.texts} texts, at most {options.rate:g} of rate; "
        f"judged along {options.unseen}, speculating from {options.questions} of their prompts in chains of {AHEAD}; {options.levels[-1]}, {bench.threads} threads"
    )
    if options.plot:
        draw(options.plot, {name: [each.along for each in found] for name, found in bench.found.items()})
        report.note(f"picture in {options.plot}")
    return report
