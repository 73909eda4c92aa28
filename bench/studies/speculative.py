"""Speculative decoding on the real model: speed-ups over plain decoding, what `auto` risks, and the project's targets.

Decoders take turns at each prompt.  A time is that of everything after the prompt's own forward, Python included; every
text is compared with plain decoding's.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastdistill as fd
from bench.lib.answers import AUTO, Answer, counted
from bench.lib.models import add_model_arguments, no_llama_cpp
from bench.lib.peers import missing, requantised
from bench.lib.prompts import loops
from bench.lib.report import Report
from bench.lib.targets import Q4_0, SAME
from bench.lib.writing import Writing, add_writing_arguments, spread_out
from bench.studies.lookup_peers import Comparison, LlamaCppWriters, TransformersWriters, Writer, compare
from bench.studies.speculative_tables import Found, tables
from fastdistill.decode import (
    Auto,
    Autoregressive,
    Decoder,
    LayerSkip,
    ModelDrafter,
    PromptLookup,
    Speculative,
)

PAUSE = 0.05  # seconds between engines: longer than any of their pools of threads spins
QUICK = {"copy": 2, "open": 2, "llama_cpp": 1, "transformers": 1, "tokens": 64, "repetitions": 2, "open_repetitions": 2}


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    numbers = {
        "copy": (20, "copy-heavy prompts"),
        "open": (20, "open prompts, under auto"),
        "tokens": (256, "most new tokens of a text"),
        "open-repetitions": (5, "turns at each open prompt"),
        "llama-cpp": (5, "copy-heavy prompts for llama.cpp's lookup"),
        "transformers": (2, "copy-heavy prompts for transformers' lookup, one turn each"),
    }
    add_writing_arguments(parser, numbers, "two prompts of each kind, 64 tokens, two turns at most")
    about = "prompts of each kind for other drafters; 2 where N is left out (default: %(default)s)"
    parser.add_argument("--drafters", type=int, default=0, metavar="N", nargs="?", const=2, help=about)


def decoders() -> dict[str, Decoder]:
    """What is compared on copy-heavy prompts: each writes plain decoding's text."""
    return {
        AUTO: Auto(),
        "lookup 7": Speculative(PromptLookup(), max_draft=7),
        "lookup 15": Speculative(PromptLookup(), max_draft=15),
        "tree 15": Speculative(PromptLookup(continuations=3), max_draft=15),
    }


class Bench(Writing):
    def __init__(self, options: Namespace, report: Report) -> None:
        super().__init__(options, report)
        self.found = Found()

    def measure(self) -> None:
        options, found = self.options, self.found
        found.costs = self.load()
        copying = decoders()
        found.decoders = list(copying)
        for task in self.tasks("copy", options.copy):
            found.answers["copy"] += self.answer(task, copying, options.repetitions)
        for task in self.tasks("open", options.open):
            found.answers["open"] += self.answer(task, {AUTO: Auto()}, options.open_repetitions)
        if options.drafters:
            self.drafters()
        self.llama_cpp()
        self.transformers()

    def drafters(self) -> None:
        """Not timed: how often the guesses of a model are right, beside lookup's."""
        self.progress.group("loading q4")
        drafters: dict[str, Any] = {
            "lookup": PromptLookup(),
            "itself in q4": ModelDrafter(fd.load(self.options.model, "q4", self.threads)),
        }
        if (layers := 2 * self.model.plan.num_layers // 3) > 0:
            drafters[f"its first {layers} layers"] = LayerSkip(layers)
        for kind in self.found.answers:
            for task in self.tasks(kind, self.options.drafters, f"drafters, {kind}"):
                plain = task.write(Autoregressive())[1].tokens
                rounds = {
                    name: task.same(Speculative(drafter, max_draft=7), plain)[1].rounds
                    for name, drafter in drafters.items()
                }
                self.found.drafted.append((kind, Answer(task.name, task.prompt, plain, loops(plain), rounds, {})))

    # ---- peers ----

    def llama_cpp(self) -> None:
        gguf, name = self.options.gguf, "llama.cpp's lookup"
        if reason := no_llama_cpp(gguf):
            self.report.skip(name, reason)
        elif some := self.prompts_of(name, self.options.llama_cpp):
            self.progress.group("loading llama.cpp")
            q4_0 = requantised(gguf, Path(tempfile.gettempdir()) / "fastdistill-bench")
            longest = max(len(answer.prompt) for answer in some) + self.options.tokens
            for engine, path in ((Q4_0, q4_0), (SAME, gguf)):
                peer = LlamaCppWriters(path, longest, self.threads, self.model.end_tokens)
                self.compare(engine, peer.writers, some, self.options.repetitions)
                peer.close()

    def transformers(self) -> None:
        name = "transformers' lookup"
        if reason := missing("torch", "transformers"):
            self.report.skip(name, reason)
        elif some := self.prompts_of(name, self.options.transformers):
            self.progress.group("loading transformers")
            peer = TransformersWriters(self.options.model, self.threads, self.model.end_tokens)
            self.compare("transformers f32", peer.writers, some, 1)

    def prompts_of(self, what: str, count: int) -> list[Answer]:
        """The copy-heavy prompts that a peer is given: of those whose answers do not loop."""
        some = spread_out(counted(self.found.answers["copy"]), count)
        if not some:
            self.report.skip(what, "no copy-heavy prompts for it")
        return some

    def compare(self, engine: str, writers: Mapping[int, Writer], prompts: list[Answer], repetitions: int) -> None:
        """What fails inside a peer is reported; it does not take our figures away."""
        into = self.found.peers[engine] = dict[int, Comparison]()
        try:
            for number, answer in enumerate(prompts, 1):
                self.progress.group(f"{engine} {number} of {len(prompts)}: {answer.name}")
                compare(
                    self.shown(writers, repetitions + 1), answer.prompt, self.options.tokens, repetitions, PAUSE, into
                )
                self.found.beside += [] if answer in self.found.beside else [answer]
        except Exception as error:
            self.report.skip(engine, f"its lookup failed: {error!r:.200}")


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    bench = Bench(options, report)
    bench.run(QUICK)
    tables(bench.found, report)
    report.note(
        f"{options.levels[-1]}, {bench.threads} threads, {options.tokens} new tokens at most; medians and quartiles of "
        f"{options.repetitions} turns, at open prompts of {options.open_repetitions}; ratios are of turns in the same round"
    )
    return report
