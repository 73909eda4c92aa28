"""Masked diffusion trained here: listops-mdlm from nothing, students that decode it in fewer steps, a filter that says what is right.

    python -m bench list_diffusion from-nothing --out FOLDER     the embedded model once more, from random weights
    python -m bench list_diffusion students --model FOLDER       dParallel, CD4LM and MCD, beside the model they begin as
    python -m bench list_diffusion filter --model FOLDER         Learn2PD: forwards of a schedule, a filter and an oracle

Students and filters learn from what the model itself writes, a position a forward, to other prompts than those measured.  A model
that is sure already decodes in few forwards as it is: with `from-nothing --steps 2500 --out FOLDER` there is one that is not.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from bench.lib.list_models import (
    EMBEDDED,
    MASK,
    Answers,
    Recipe,
    Score,
    answers_of,
    batch_of_answers,
    choice_kept,
    engine_of,
    fit,
    model_of,
    save,
    score,
    some_prompts,
    take,
)
from bench.lib.list_tasks import DETERMINISTIC, POSITIONS, TASKS, examples
from bench.lib.plot import picture
from bench.lib.progress import Progress
from bench.lib.report import Report
from fastdistill.distill import held_cosine
from fastdistill.errors import ArgumentError
from fastdistill.kernels import default_threads, isa, set_isa
from fastdistill.train import EMA, Batch, Engine, objective
from fastdistill.train.batch import Objective
from fastdistill.train.masked import (
    CertaintyForcing,
    CleanerTeacher,
    MaskedConsistency,
    complementary,
    consecutive,
    corrupted,
    nested,
)
from fastdistill.unmask import EntropyThreshold, Learned, LearnedFilter, Oracle, Rule, Schedule, Threshold

NOTHING = Recipe(steps=18000, sequences=32, rate=1e-3, average=0.999, warm_up=100)
CAP = 1.0  # every masked token counts alike: the same optimum as by 1 / t, and after 600 steps nearer to it
CHOICES, WHOLE = (
    0.4,
    0.3,
)  # tasks with a choice are soon learnt, and noise for others; as decoding begins, all is masked
CROSS_ENTROPY = objective("cross_entropy")
STUDENT = Recipe(steps=400, sequences=32, rate=5e-4, average=0.99, warm_up=20)
MEASURED, LEARNT = 0, 1  # seeds of prompts
LOOKS = 10  # how often a training from nothing is looked at
SLOW, FAST = "1 a step", "threshold 0.9"
THRESHOLDS: dict[str, Rule] = {f"threshold {p}": Threshold(p) for p in (0.5, 0.7, 0.9, 0.97)}
SHOWN = SLOW, FAST, "entropy 0.5"
SCHEDULES: dict[str, Rule] = {
    SLOW: Schedule(),
    "2 a step": Schedule(5),
    "4 a step": Schedule(3),
    "all at once": Schedule(1),
}
RULES: dict[str, Rule] = {**SCHEDULES, **THRESHOLDS, "entropy 0.5": EntropyThreshold(0.5)}
README: dict[str, Rule] = {**SCHEDULES, **{name: THRESHOLDS[name] for name in ("threshold 0.9", "threshold 0.5")}}
LOST = 0.01  # right answers that "as right" may lose
ACCEPTS = (0.9, 0.96)
JUMP, SURER = 0.25, 0.75  # of MCD: how far its teacher is ahead, and the temperature of one that is surer than it is
ROUNDS = {
    1 / 16: 0.96,
    1 / 8: 0.89,
    1 / 4: 0.82,
    1 / 2: 0.75,
}  # of MCD: a jump of each, twice the one before, and the teacher's temperature


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(threads=[default_threads()], levels=[isa()])
    parser.add_argument("part", choices=PARTS, help="see the head of the study")
    parser.add_argument(
        "--model", default=EMBEDDED, help="that students and filters begin with, a folder (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, help=f"default: {NOTHING.steps} from nothing, {STUDENT.steps} of a student"
    )
    parser.add_argument("--prompts", type=int, default=60, metavar="N", help="of each task (default: %(default)s)")
    parser.add_argument(
        "--texts", type=int, default=200, metavar="N", help="of each task, to learn from (default: %(default)s)"
    )
    parser.add_argument(
        "--learn", nargs="+", choices=TASKS, default=TASKS, help="tasks that students learn from (default: all)"
    )
    parser.add_argument("--students", nargs="+", metavar="NAME", help="as they are named in tables (default: all)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for the model that is trained from nothing, at each look what it then is",
    )
    parser.add_argument("--plot", type=picture, metavar="FILE.png", help="a picture of what was found")


def run(options: Namespace) -> Report:
    report, before = Report(__doc__.partition("\n\n")[0], markdown=True), isa()
    try:
        set_isa(options.levels[-1])
        PARTS[options.part](report, options)
    finally:
        set_isa(before)
    if options.plot:
        report.note(f"picture in {options.plot}")
    return report


def with_steps(recipe: Recipe, steps: int | None) -> Recipe:
    return recipe if steps is None else replace(recipe, steps=steps)


def add_score(report: Report, found: Score, **more: str) -> None:
    """A line: what it is of, right answers of each task, forwards of a prompt."""
    report.row(
        **more,
        **{task: f"{found.right[task]:.0%}" for task in TASKS},
        forwards=float(np.mean(list(found.forwards.values()))),
        **{"of one answer": Score.one_answer(found.forwards)},
    )


# ---- from nothing ----


def from_nothing(report: Report, options: Namespace) -> None:
    recipe, progress = with_steps(NOTHING, options.steps), Progress()
    engine = engine_of(EMBEDDED, recipe.sequences, max(options.threads), seed=0)
    few, looks, began = some_prompts(max(options.prompts // 3, 1), LEARNT), {}, perf_counter()

    def batches(step: int) -> Batch:
        random = np.random.default_rng([LEARNT, step])
        texts = batch_of_answers(examples(recipe.sequences, random, CHOICES))
        return corrupted(texts, MASK, random, cap=CAP, whole=WHOLE)

    def look(done: int, average: EMA) -> None:
        progress.step(done, recipe.steps)
        if done % max(recipe.steps // LOOKS, 1) == 0:
            with average.swapped():
                looks[done] = score(model_of(engine), RULES[FAST], few)
                if options.out:
                    save(engine, options.out)

    progress.group("from random weights")
    fit(engine, batches, lambda step: CROSS_ENTROPY, recipe, look)
    minutes = (perf_counter() - began) / 60
    progress.end()
    if options.out:
        save(engine, options.out)
    found = {
        name: score(model_of(engine), rule, some_prompts(options.prompts, MEASURED)) for name, rule in README.items()
    }
    for name, each in found.items():
        add_score(report, each, rule=name)
    report.table(f"On the way, with {FAST}")
    for step, each in looks.items():
        add_score(report, each, step=str(step))
    report.note(
        f"{recipe.steps} steps of {recipe.sequences} texts, {engine.parameters.count} numbers: {minutes:.1f} minutes, these looks included"
    )
    least = min(found[SLOW].right.values())
    report.note(
        f"target: 99 % of each task, {SLOW}, within 20 minutes; the least is {least:.1%}: {met(least >= 0.99 and minutes <= 20)}"
    )
    if options.plot:
        from bench.studies.list_diffusion_plot import draw_looks

        draw_looks(options.plot, looks)


def met(is_met: bool) -> str:
    return "met" if is_met else "not met"


# ---- students ----


class Round(NamedTuple):
    """make      what a student sees of a batch of whole texts
    objective_of  what it minimises, by the step
    """

    make: Callable[[Batch, np.random.Generator], Batch]
    objective_of: Callable[[int], Objective]


def students_of(teacher: Engine, recipe: Recipe) -> dict[str, list[Round]]:
    """By name: how a student is taught, in rounds before each of which it becomes the teacher."""

    def seen(make: Callable[..., Batch], **options: float) -> Callable[[Batch, np.random.Generator], Batch]:
        return lambda batch, random: make(batch, MASK, random, **options)

    def consistency(step: int) -> Objective:
        share, beside = held_cosine(step, recipe.steps), CleanerTeacher(teacher)
        return objective("forward_kl", teacher=beside, temperature=2.0, temperature_squared=True, scale=share, label_scale=1 - share)  # fmt: skip

    def masked(jump: float, temperature: float, kind: str = "forward_kl") -> Round:
        loss = MaskedConsistency(CleanerTeacher(teacher, temperature), kind)
        return Round(seen(consecutive, jump=jump), lambda step: loss)

    return {
        "its texts alone": [Round(seen(corrupted), lambda step: CROSS_ENTROPY)],
        "dParallel": [Round(seen(complementary), lambda step: CertaintyForcing())],
        "CD4LM": [Round(seen(nested), consistency)],
        "CD4LM, as long answers": [Round(seen(nested, short=False), consistency)],
        "MCD, forward KL": [masked(JUMP, 1.0)],
        f"MCD, teacher at {SURER}": [masked(JUMP, SURER)],
        "MCD, reverse KL": [masked(JUMP, 1.0, "reverse_kl")],
        f"MCD in {len(ROUNDS)} rounds": [masked(jump, temperature) for jump, temperature in ROUNDS.items()],
    }


def students(report: Report, options: Namespace) -> None:
    recipe, progress = with_steps(STUDENT, options.steps), Progress()

    def engine() -> Engine:
        return engine_of(options.model, 2 * recipe.sequences, max(options.threads))  # dParallel has two views of a text

    teacher = engine()
    progress.group("texts of the model's own")
    taught = students_of(teacher, recipe)
    if unknown := [name for name in options.students or () if name not in taught]:
        raise ArgumentError(f"--students must be of {', '.join(taught)}; got {', '.join(unknown)}")
    texts = answers_of(model_of(teacher), some_prompts(options.texts, LEARNT, options.learn), RULES[SLOW]).texts
    found, kept = {"as it is": scores(teacher, options.prompts)}, {"as it is": choices(teacher, options.prompts)}
    as_it_is, student = engine(), engine()
    for name in options.students or taught:
        rounds = taught[name]
        progress.group(name)
        take(student, as_it_is)
        for number, each in enumerate(rounds):
            take(teacher, student)

            def batches(step: int, each: Round = each, number: int = number) -> Batch:
                random = np.random.default_rng([LEARNT, number, step])
                return each.make(batch_of_answers(texts[random.integers(len(texts), size=recipe.sequences)]), random)

            part = replace(recipe, steps=max(recipe.steps // len(rounds), 1))
            fit(student, batches, each.objective_of, part, lambda done, _, part=part: progress.step(done, part.steps))
        found[name], kept[name] = scores(student, options.prompts), choices(student, options.prompts)
    progress.end()
    add_speeds(report, found, kept)
    for rule in SHOWN:
        report.table(rule)
        for name, each in found.items():
            add_score(report, each[rule], student=name)
    report.note(
        f"{recipe.steps} steps of {recipe.sequences} of {len(texts)} texts of {', '.join(options.learn)}; {options.prompts} prompts of each task"
    )
    report.note(
        "choice kept: the entropy of an answer's first word where all is masked, over that of any word of the list alike"
    )
    if options.plot:
        from bench.studies.list_diffusion_plot import draw_rules

        draw_rules(options.plot, {name: [each[rule] for rule in THRESHOLDS] for name, each in found.items()})


def scores(engine: Engine, count: int) -> dict[str, Score]:
    return {name: score(model_of(engine), rule, some_prompts(count, MEASURED)) for name, rule in RULES.items()}


def choices(engine: Engine, count: int) -> dict[str, str]:
    """A column for each task that leaves a choice."""
    return {f"choice kept, {task}": f"{choice_kept(engine, task, count):.0%}" for task in ("choose", "shuffle")}


def add_speeds(report: Report, found: dict[str, dict[str, Score]], kept: dict[str, dict[str, str]]) -> None:
    """Of each model the quickest rule that is as right as the model as it is a position a forward; and what choice it leaves."""
    report.table(
        f"Forwards of {POSITIONS} positions by the quickest rule that is as right as the model as it is, {SLOW}, less {LOST:.0%}"
    )
    before = next(iter(found.values()))[SLOW]
    for name, each in found.items():
        cells: dict[str, str | float] = {}
        for kind, tasks in {"one answer": DETERMINISTIC, "shuffle": ("shuffle",)}.items():
            least = mean(before.right, tasks) - LOST
            right = [(mean(one.forwards, tasks), rule) for rule, one in each.items() if mean(one.right, tasks) >= least]
            forwards, rule = min(right, default=("", "none"))
            cells |= {kind: forwards, f"{kind}, by": rule}
        report.row(student=name, **cells, **kept[name])


def mean(of_tasks: dict[str, float], tasks: tuple[str, ...]) -> float:
    return float(np.mean([of_tasks[task] for task in tasks]))


# ---- a filter ----


def filters(report: Report, options: Namespace) -> None:
    """Static, learned and ideal: what the model writes a position a forward is what all of them should write."""
    engine = engine_of(options.model, 64, max(options.threads))
    model, progress = model_of(engine), Progress()
    static = RULES[SLOW]

    def oracles(answers: Answers) -> list[Rule]:
        return [Oracle(answer.tolist(), POSITIONS, pairs) for answer in answers.written]

    progress.group("a filter learns from an oracle's trajectories")
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    learnt = some_prompts(options.texts, LEARNT)
    answers_of(model, learnt, oracles(answers_of(model, learnt, static)))
    learned = LearnedFilter.fit(*(np.stack(each) for each in zip(*pairs, strict=True)))
    count = len(pairs)
    some = some_prompts(options.prompts, MEASURED)
    slow = answers_of(model, some, static)
    rules: dict[str, Rule | list[Rule]] = {
        "schedule": static,
        FAST: RULES[FAST],
        **{f"filter, {accept}": Learned(learned, accept) for accept in ACCEPTS},
        "oracle": oracles(slow),
    }
    found = {}
    for name, rule in rules.items():
        progress.group(name)
        found[name] = score(model, rule, some)
        same = (answers_of(model, some, rule).written == slow.written).all(axis=1).mean()
        add_score(report, found[name], rule=name, **{"as scheduled": f"{same:.0%}"})
    progress.end()
    report.note(
        f"a filter of {learned.hidden} units, fit to {count} steps of {len(learnt)} texts; {options.prompts} prompts of each task"
    )
    report.note("as scheduled: answers that are the schedule's, word for word, as the oracle's must be")
    if options.plot:
        from bench.studies.list_diffusion_plot import draw_rules

        draw_rules(options.plot, {name: [each] for name, each in found.items()})


PARTS = {"from-nothing": from_nothing, "students": students, "filter": filters}
