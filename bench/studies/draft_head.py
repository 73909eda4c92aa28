"""A draft head that the model distils by itself: guesses that stand by depth, tokens a forward, and time beside plain decoding.

One command from nothing: `python -m bench draft_head` lets the model make its head (30 minutes), then writes greedy texts
in turns, plain and drafted, on open prompts, on copy-heavy ones, and on a file of questions where one is given.  None of
them is among the prompts that the head has learnt from.  A time is that of everything after the prompt's own forward,
Python included; every text is compared with plain decoding's.  `--recipe eagle medusa` makes a head of each sort, from the same
texts and in the same minutes, and judges both on the same texts that neither has learnt from.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.lib.answers import AUTO, Answer, Guesses, counted
from bench.lib.models import add_model_arguments
from bench.lib.prompts import Prompt
from bench.lib.report import Report
from bench.lib.writing import Task, Writing, add_writing_arguments, spread_out
from bench.studies.answer_tables import about, cost_table
from fastdistill.decode import Auto, Decoder, FirstOf, HeadDrafter, PromptLookup, Speculative, Tree
from fastdistill.models.draft_head import EAGLE, RECIPES
from fastdistill.train.draft_head import Acceptance, HeadSettings
from fastdistill.train.draft_head.training import HeadTraining
from fastdistill.train.own_texts.lots import Lots
from fastdistill.train.own_texts.target import Target
from fastdistill.train.own_texts.work import WorkTime
from fastdistill.train.runs import RunFolder

QUICK = {"copy": 2, "open": 2, "questions": 4, "tokens": 64, "repetitions": 2}
LOOKUP = "auto, lookup alone"
DEPTHS = (1, 2, 3, 4, 5)
WANTED = {"tokens a forward": 1.9, "time": 1.35, "least": 0.95}


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    numbers = {
        "open": (20, "open prompts"),
        "copy": (5, "copy-heavy prompts"),
        "questions": (60, "questions of --file, at even distances"),
        "tokens": (256, "most new tokens of a text"),
    }
    add_writing_arguments(parser, numbers, "two prompts of each kind, 64 tokens, two turns at most")
    parser.add_argument("--draft", metavar="FOLDER", help="a head that has been made (default: make one)")
    parser.add_argument(
        "--recipe", nargs="+", choices=RECIPES, default=[EAGLE], help="of what is made; several share their texts"
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, metavar="M", help="to make one in (default: %(default)s)"
    )
    parser.add_argument(
        "--file", metavar="FILE", help='questions: lines of {"category": ..., "turns": [...]}, as Spec-Bench has them'
    )


def decoders(folder: str) -> dict[str, Decoder]:
    """Each writes plain decoding's text."""
    head = HeadDrafter(folder)
    sure = PromptLookup(min_match=8)
    return {
        AUTO: Auto(drafter=FirstOf(sure, head)),
        "chain 2": Speculative(HeadDrafter(folder, 0.0), max_draft=2),
        "chain 4": Speculative(head, max_draft=4),
        "tree 3x3": Speculative(head, tree=Tree(3, 3), max_draft=8),
    }


class Bench(Writing):
    def __init__(self, options: Namespace, report: Report) -> None:
        super().__init__(options, report)
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.judged: dict[str, Acceptance] = {}  # by recipe

    def measure(self) -> None:
        options = self.options
        self.load()
        with tempfile.TemporaryDirectory() as place:
            first, *more = [options.draft] if options.draft else self.distilled(Path(place))
            others = decoders(first)
            for folder in more:
                others |= {f"{name}, {Path(folder).name}": decoder for name, decoder in decoders(folder).items()}
            for kind, count in (("open", options.open), ("copy", options.copy)):
                for task in self.tasks(kind, count):
                    weighed = {LOOKUP: Auto(drafter=PromptLookup(min_match=1)), **others}
                    self.answers[kind] += self.answer(task, weighed, options.repetitions)
            weighed = {name: decoder for name, decoder in others.items() if name.startswith(AUTO)}
            for category, task in self.asked():
                self.answers[category] += self.answer(task, weighed, options.repetitions)

    def distilled(self, place: Path) -> list[str]:
        """A head's folder for each recipe, within `place`."""
        options = self.options
        settings = HeadSettings(model=options.model, minutes=options.minutes, threads=self.threads)
        self.progress.group(f"writing what is learnt from in {settings.minutes * settings.writing:g} minutes")
        target, file = Target.load(settings.model, settings.threads), place / "time.json"
        lots = Lots(settings, target, place / "texts", WorkTime(file, time.monotonic()))
        lots.write(lambda share, tokens: None, lambda: False)
        texts = lots.read()
        for recipe in options.recipe:
            self.progress.group(f"making a draft head: {recipe}")
            clock = WorkTime(file, time.monotonic())  # what writing has left is each one's
            head = HeadTraining(replace(settings, recipe=recipe), target, texts)
            with RunFolder(place / f"{recipe}.run", {"settings": {"recipe": recipe}}) as run:
                head.train(run, clock, lambda steps: lambda record: None, lambda: False)
            self.judged[recipe] = head.save(place / recipe)
        return [str(place / recipe) for recipe in options.recipe]

    def asked(self) -> Iterator[tuple[str, Task]]:
        """First turns of the file's questions, and their categories."""
        if self.options.file is None:
            self.report.skip("questions", "no --file names some")
            return
        lines = [json.loads(line) for line in Path(self.options.file).read_text("utf-8").splitlines()]
        some = spread_out(lines, self.options.questions)
        for number, line in enumerate(some, 1):
            category = str(line["category"])
            self.progress.group(f"question {number} of {len(some)}: {category}")
            yield category, self.task(Prompt(f"{category} {line['question_id']}", line["turns"][0], True))


def tables(bench: Bench, report: Report) -> None:
    if bench.costs is None:
        return
    cost_table(report, bench.costs)
    if bench.judged:
        report.table(
            "texts that no head has learnt from; by depth, how often the first guess is right where those before it were"
        )
        for recipe, found in bench.judged.items():
            rates = {str(depth): float(rate) for depth, rate in enumerate(found.ranks[:, 0], 1)}
            report.row(recipe=recipe, **{"tokens a forward": found.tokens}, **rates)
    for kind, answers in bench.answers.items():
        report.table(f"{kind}: plain decoding, and speed-ups over it")
        for answer in answers:
            report.row(**about(answer), **{name: answer.speed_up(name) for name in answer.rounds})
    report.table("answers that do not loop; by depth, the part of the guesses that stood where their parents did")
    for kind, answers in bench.answers.items():
        for name, guesses in _guesses(counted(answers)).items():
            times = _times(counted(answers), name)
            cells = {
                "prompts": f"{len(times)} {kind}",
                "decoder": name,
                "time": float(np.median(times)),
                "least": float(times.min()),
            }
            cells |= {"tokens a forward": guesses.tokens_per_forward, "stood": guesses.acceptance}
            report.row(**cells, **{str(depth): guesses.at(depth) for depth in DEPTHS})
    some = counted(bench.answers["open"])
    if some:
        times = _times(some, AUTO)
        reached = {
            "tokens a forward": Guesses.of(some, AUTO).tokens_per_forward, "time": float(np.median(times)), "least": float(times.min()),
        }  # fmt: skip
        report.table("targets, on open prompts under auto")
        for name, wanted in WANTED.items():
            report.row(
                target=f"{name} >= {wanted:g}", reached=reached[name], kept="yes" if reached[name] >= wanted else "no"
            )


def _guesses(answers: list[Answer]) -> Mapping[str, Guesses]:
    return {name: Guesses.of(answers, name) for name in (answers[0].rounds if answers else ())}


def _times(answers: list[Answer], name: str) -> np.ndarray:
    """Plain decoding's time over this one's, of each answer the median of its turns."""
    return np.array([answer.speed_up(name).median for answer in answers])


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    bench = Bench(options, report)
    bench.run(QUICK)
    tables(bench, report)
    report.note(
        f"{options.levels[-1]}, {bench.threads} threads, {options.tokens} new tokens at most; medians of {options.repetitions} turns; "
        "ratios are of turns in the same round"
    )
    return report
