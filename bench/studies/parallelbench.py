"""What decoders of a masked model give up for speed: accuracy against tokens a forward, on list tasks that say why.

Every rule that decides how many positions a forward commits, at several settings, writes the same answers with the embedded
`listops-mdlm`.  Seven tasks have one answer: nothing ties its positions together but the prompt, and all of them may be committed
at once.  A shuffle is any permutation: its positions depend on one another, and those that are committed together do not know
(bench/lib/toy_joints.py: what that costs at least).  After ParallelBench (Kang et al. 2025), with its strategies and others.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.list_tasks import END, POSITIONS, TASKS, WORDS, ListPrompt, judge, prompts
from bench.lib.plot import picture
from bench.lib.progress import Progress
from bench.lib.report import Report
from bench.studies.parallelbench_tables import Measured, Setting, tables
from bench.studies.parallelbench_verdicts import verdicts
from fastdistill.decode import Unmask
from fastdistill.kernels import default_threads, isa, set_isa
from fastdistill.unmask import (
    Adaptive,
    EntropyBudget,
    EntropyThreshold,
    Explore,
    Factor,
    Learned,
    LearnedFilter,
    Oracle,
    Remdm,
    Revise,
    Rule,
    RunningConfidence,
    Schedule,
    Threshold,
)

MODEL = "listops-mdlm"
TRAINING = 1  # the seed of the prompts that the filter learns from; those that are measured have 0
STEPS = {"1 a step": 10, "2 a step": 5, "4 a step": 3, "all at once": 1}  # of the answer's ten positions
SCORES = ("confidence", "margin", "entropy", "random")
CACHES = ("none", "prefix", "dual")
STATIC = "1 a step, confidence"  # what the model does best, and what FreeDave's answers have to equal
unmask = partial(Unmask, early_exit=False)  # all ten positions are filled, so that forwards can be compared
BLOCKS = {"1 a step, blocks of 5": Schedule(), "threshold 0.9, blocks of 5": Threshold(0.9)}


def adaptive(name: str, rule: Rule, **options: Any) -> Setting:
    return Setting("adaptive", name, unmask(rule, **options))


SETTINGS = (
    *(
        Setting("schedule", f"{per}, {score}", unmask(Schedule(steps, score)))
        for score in SCORES
        for per, steps in STEPS.items()
    ),
    Setting("schedule", "cosine, 5 steps", unmask(Schedule(5, kind="cosine"))),
    Setting("schedule", "ascending, 3 steps", unmask(Schedule(3, kind="ascending"))),
    *(adaptive(f"threshold {threshold}", Threshold(threshold)) for threshold in (0.5, 0.7, 0.9, 0.99)),
    *(adaptive(f"factor {factor}", Factor(factor)) for factor in (0.5, 1.0, 2.0)),
    *(adaptive(f"entropy at most {most}", EntropyThreshold(most)) for most in (0.1, 0.5)),
    *(adaptive(f"entropy budget {budget}", EntropyBudget(budget)) for budget in (0.1, 0.5)),
    adaptive("adaptive 0.95, 1 to 4", Adaptive()),
    adaptive("explore", Explore()),
    adaptive("explore, blocks of 5", Explore(), block_length=5),
    Setting("remask", "5 steps, running confidence", unmask(Schedule(5), remask=RunningConfidence())),
    Setting("remask", "5 steps, ReMDM", unmask(Schedule(5), remask=Remdm())),
    Setting("remask", "5 steps, revised", unmask(Schedule(5), remask=Revise())),
    *(
        Setting("blocks", f"{name}, cache {cache}", unmask(rule, block_length=5, cache=cache), f"{name}, cache none")
        for name, rule in BLOCKS.items()
        for cache in CACHES
    ),
    *(Setting("FreeDave", f"FreeDave, {n} drafts", unmask(Schedule(), drafts=n), STATIC) for n in (2, 4, 8)),
)
ACCEPTS = (0.9, 0.96)  # of filters that are learned here, with the prompts of another seed


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(threads=[default_threads()], levels=[isa()])
    parser.add_argument("--prompts", type=int, default=60, metavar="N", help="of each task (default: %(default)s)")
    parser.add_argument(
        "--same", type=int, default=1000, metavar="N", help="prompts that FreeDave is checked on (default: %(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="a column for every task")
    parser.add_argument(
        "--plot", type=picture, metavar="FILE.png", help="accuracy against tokens a forward, as a picture"
    )


def measure(model: fd.Model, setting: Setting, some: Sequence[ListPrompt]) -> Measured:
    started = time.perf_counter()
    results = model.generate([prompt.text for prompt in some], max_tokens=POSITIONS, decoder=setting.decoder)
    seconds = time.perf_counter() - started
    answers = [list(result.tokens) for result in results]
    right: dict[str, list[bool]] = {}
    for prompt, answer in zip(some, answers, strict=True):
        right.setdefault(prompt.task, []).append(judge(prompt, answer))
    forwards = sum(result.stats.forwards for result in results)
    committed = sum(result.stats.committed for result in results)
    shares = {task: float(np.mean(of_task)) for task, of_task in right.items()}
    count = len(some)
    return Measured(setting, shares, answers, forwards / count, committed / forwards, seconds / count * 1e3)


def of_all_tasks(count: int, seed: int = 0) -> list[ListPrompt]:
    """So many of each."""
    return [prompt for task in TASKS for prompt in prompts(task, count, seed)]


def learned(model: fd.Model, count: int) -> list[Setting]:
    """Filters that learned from so many prompts of each task, of another seed, which tokens are already those of one a step."""
    static = next(setting.decoder for setting in SETTINGS if setting.name == STATIC)
    examples: list[tuple[np.ndarray, np.ndarray]] = []
    for prompt in of_all_tasks(count, TRAINING):
        answer = model.generate(prompt.text, max_tokens=POSITIONS, decoder=static).tokens
        oracle = Oracle([*answer, *[WORDS.index(END)] * (POSITIONS - len(answer))], POSITIONS, examples)
        model.generate(prompt.text, max_tokens=POSITIONS, decoder=unmask(oracle))
    confidence, right = (np.stack(some) for some in zip(*examples, strict=True))
    filter = LearnedFilter.fit(confidence, right)
    return [adaptive(f"learned filter, {accept}", Learned(filter, accept)) for accept in ACCEPTS]


def run(options: Namespace) -> Report:
    report, progress, before = Report(__doc__, markdown=True), Progress(), isa()
    found: dict[str, Measured] = {}
    try:
        set_isa(options.levels[-1])
        model = fd.load(MODEL, threads=max(options.threads))
        progress.group("learning a filter")
        settings = [*SETTINGS, *learned(model, options.prompts)]
        some = of_all_tasks(options.prompts)
        measure(model, settings[0], some[:32])  # to warm up
        for number, setting in enumerate(settings, 1):
            progress.group(f"{number} of {len(settings)}: {setting.name}")
            found[setting.name] = measure(model, setting, some)
        progress.group(f"FreeDave on {options.same} prompts")
        same = of_all_tasks(-(-options.same // len(TASKS)))[: options.same]
        drafting = [setting for setting in SETTINGS if setting.family == "FreeDave" or setting.name == STATIC]
        checked = {setting.name: measure(model, setting, same) for setting in drafting}
    finally:
        progress.end()
        set_isa(before)
    tables(report, found, options.all)
    for verdict in verdicts(found, checked):
        report.note(str(verdict))
    if options.plot:
        from bench.studies.parallelbench_plot import draw

        draw(options.plot, list(found.values()))
        report.note(f"picture in {options.plot}")
    return report
