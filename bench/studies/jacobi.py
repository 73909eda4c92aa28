"""Jacobi and lookahead decoding on the real model, and what a model trained for them would gain.

Every text is compared with plain decoding's.  Decoders that weigh their guesses are timed in turns with it; those that
make all of them in every forward, which is slow, are shown for what they give a forward.

No decoder makes the trajectories of a model converge fast that was not trained for it.  So a synthetic one writes too:
each forward is the real model's and takes its time, the text is a law's, and of its positions a part q depends on the
token before (bench/lib/synthetic.py).  It shows what a trained model would gain here.  Published ones give about 4 tokens a
forward: the q that is nearest to that is marked.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

import numpy as np

from bench.lib.answers import AUTO
from bench.lib.models import add_model_argument
from bench.lib.report import Report
from bench.lib.synthetic import Law, SyntheticSession
from bench.lib.writing import Task, Writing, add_writing_arguments
from bench.studies.jacobi_tables import Found, tables
from fastdistill.decode import Auto, Decoder, Jacobi, Lookahead, PromptLookup, Speculative

QUICK = {"copy": 2, "open": 2, "fixed": 1, "synthetic": 1, "tokens": 48, "repetitions": 2}
COUPLED = (0.1, 0.3, 0.5, 0.7, 1.0)  # q: parts of the positions that depend on the token before
PROMPT = 64  # tokens before a synthetic text


def add_arguments(parser: ArgumentParser) -> None:
    add_model_argument(parser)
    numbers = {
        "copy": (8, "copy-heavy prompts"),
        "open": (8, "open prompts"),
        "tokens": (128, "most new tokens of a text"),
        "fixed": (3, "prompts of each kind for decoders that are not adaptive, one turn each"),
        "synthetic": (2, "texts of each synthetic model"),
    }
    add_writing_arguments(parser, numbers, "two prompts of each kind, 48 tokens, two turns at most")


def adaptive() -> dict[str, Decoder]:
    """Those that guess where it pays."""
    return {
        "Jacobi": Jacobi(),
        "Jacobi, 2 blocks": Jacobi(max_blocks=2),
        "Lookahead": Lookahead(),
        AUTO: Auto(),
    }


def sliding(guesses: int, recycle: bool = True) -> Jacobi:
    """A window that moves with the text."""
    return Jacobi(block=1, max_blocks=guesses, spawn=0, recycle=recycle, adaptive=False)


def fixed() -> dict[str, Decoder]:
    """Those that make all of their guesses in every forward; lookahead's are named by window, n-gram and guesses."""
    jacobi, lookahead = partial(Jacobi, adaptive=False), partial(Lookahead, adaptive=False)
    return {
        **{f"block 16, {init}": jacobi(init=init, recycle=False) for init in ("prompt", "random", "copy")},
        **{f"block {block}": jacobi(block, recycle=False) for block in (4, 8, 32)},
        "sliding 16": sliding(16, recycle=False),
        "block 16, recycling": jacobi(),
        "2 blocks of 16, recycling": jacobi(max_blocks=2),
        **{"lookahead {}, {}, {}".format(*sizes): lookahead(*sizes) for sizes in ((0, 5, 4), (3, 4, 3), (7, 5, 7))},
        "lookahead 15, 5, 15": lookahead(15, 5, 15),
        "lookahead 7, 5, 7, not from the text": lookahead(from_text=False),
        "lookup 7": Speculative(PromptLookup(), max_draft=7),
    }


def converging() -> dict[str, Decoder]:
    """What writes the synthetic texts, whose tokens no drafter finds in the text before."""
    return {
        "adaptive": Jacobi(),
        "block 16": Jacobi(adaptive=False),
        "2 blocks of 16": Jacobi(max_blocks=2, adaptive=False),
        **{f"sliding {guesses}": sliding(guesses) for guesses in (8, 16)},
    }


class Bench(Writing):
    def __init__(self, options: Namespace, report: Report) -> None:
        super().__init__(options, report)
        self.found = Found()

    def measure(self) -> None:
        options, found = self.options, self.found
        found.costs = self.load()
        for kind, answers in found.adaptive.items():
            for task in self.tasks(kind, getattr(options, kind)):
                answers += self.answer(task, adaptive(), options.repetitions)
        self.synthetic()
        for kind, answers in found.fixed.items():
            for task in self.tasks(kind, min(options.fixed, getattr(options, kind)), f"not adaptive, {kind}"):
                answers += self.answer(task, fixed(), repetitions=1, warm_up=0)

    def synthetic(self) -> None:
        for coupled in COUPLED:
            for seed in range(self.options.synthetic):
                self.progress.group(f"synthetic, q = {coupled}: {seed + 1} of {self.options.synthetic}")
                answers = self.answer(self.invented(coupled, seed), converging(), self.options.repetitions)
                self.found.synthetic.setdefault(coupled, []).extend(answers)

    def invented(self, coupled: float, seed: int) -> Task:
        """A text that a law gives, of full length."""
        model, tokens = self.model, self.options.tokens
        prompt = (np.arange(PROMPT) % model.plan.vocab_size).tolist()
        session = model.session(min(model.plan.max_positions, PROMPT + tokens))
        law = Law(coupled, model.plan.vocab_size, seed)
        return Task(
            f"q = {coupled}", prompt, lambda taps: SyntheticSession(session, law), tokens, frozenset(), self.costs
        )


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    bench = Bench(options, report)
    bench.run(QUICK)
    tables(bench.found, report)
    report.note(
        f"{options.levels[-1]}, {bench.threads} threads, {options.tokens} new tokens at most; medians and quartiles of "
        f"{options.repetitions} turns, where decoders are not adaptive of one; ratios are of turns in the same round"
    )
    return report
