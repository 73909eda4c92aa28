"""Speculative decoding on the real model: speed-ups over plain decoding, what `auto` risks, and the project's targets.

Decoders take turns at each prompt.  A time is that of everything after the prompt's own forward, Python included; every
text is compared with plain decoding's.
"""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fastdistill as fd
from bench.answers import AUTO, PLAIN, Answer, counted
from bench.lookup_peers import Comparison, LlamaCppWriters, TransformersWriters, Writer, compare
from bench.models import add_model_arguments, no_llama_cpp
from bench.peers import missing, requantised
from bench.progress import Progress
from bench.prompts import Prompt, load, loops
from bench.report import Report
from bench.speculative_tables import Found, tables
from bench.targets import Q4_0, SAME
from bench.timing import Key, Samples, interleave
from fastdistill.decode import (
    Auto,
    Autoregressive,
    Costs,
    Decoder,
    Generation,
    LayerSkip,
    ModelDrafter,
    PromptLookup,
    Speculative,
    generate,
)
from fastdistill.kernels import default_threads, isa, set_isa

PAUSE = 0.05  # seconds between engines: longer than any of their pools of threads spins
QUICK = {"copy": 2, "open": 2, "llama_cpp": 1, "transformers": 1, "tokens": 64, "repetitions": 2, "open_repetitions": 2}


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=3)

    def number(name: str, default: int, about: str, **more: Any) -> None:
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{about} (default: %(default)s)", **more
        )

    number("--copy", 20, "copy-heavy prompts")
    number("--open", 20, "open prompts, under auto")
    number("--tokens", 256, "most new tokens of a text")
    number("--open-repetitions", 5, "turns at each open prompt")
    number("--llama-cpp", 5, "copy-heavy prompts for llama.cpp's lookup")
    number("--transformers", 2, "copy-heavy prompts for transformers' lookup, one turn each")
    number("--drafters", 0, "prompts of each kind for other drafters; 2 where N is left out", nargs="?", const=2)
    parser.add_argument("--quick", action="store_true", help="two prompts of each kind, 64 tokens, two turns at most")


def decoders(costs: Costs) -> dict[str, Decoder]:
    """What is compared on copy-heavy prompts: each writes plain decoding's text."""
    return {
        AUTO: Auto(costs),
        "lookup 7": Speculative(PromptLookup(), max_draft=7),
        "lookup 15": Speculative(PromptLookup(), max_draft=15),
        "tree 15": Speculative(PromptLookup(continuations=3), max_draft=15),
    }


def spread_out(items: Sequence[Any], count: int) -> list[Any]:
    """So many of them at even distances: prompts of one sort are neighbours."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


class Bench:
    def __init__(self, options: Namespace, report: Report, progress: Progress) -> None:
        self.options, self.report, self.progress = options, report, progress
        self.threads = max(options.threads)
        self.found = Found()

    def measure(self) -> None:
        """Part by part; what is finished stays when one is interrupted."""
        options, found = self.options, self.found
        self.progress.group("loading")
        self.model = fd.load(options.model, threads=self.threads)
        self.progress.group("cost of a forward")
        found.costs = costs = self.model.measure_costs()
        copying = decoders(costs)
        found.decoders = list(copying)
        self.answer("copy", options.copy, copying, options.repetitions)
        self.answer("open", options.open, {AUTO: Auto(costs)}, options.open_repetitions)
        if options.drafters:
            self.drafters()
        self.llama_cpp()
        self.transformers()

    def answer(self, kind: str, count: int, others: Mapping[str, Decoder], repetitions: int) -> None:
        """Plain decoding and the others, in turns at each prompt; the first turns are checked and not counted."""
        prompts = spread_out(load(kind), count)
        for number, prompt in enumerate(prompts, 1):
            self.progress.group(f"{kind} {number} of {len(prompts)}: {prompt.name}")
            ids, session = self.session(prompt)
            plain = self.write(session, ids, Autoregressive())[1].tokens
            if len(plain) < 2:
                self.report.skip(prompt.name, "the model ends the text at once")
                continue
            contestants = {PLAIN: Autoregressive(), **others}
            turns = {name: partial(self.same, session, ids, one, plain) for name, one in contestants.items()}
            texts = interleave(self.shown(turns, repetitions), repetitions)  # all run on one pool of threads
            seconds = {name: Samples.of(taken for taken, _ in some) for name, some in texts.items()}
            rounds = {name: texts[name][-1][1].rounds for name in others}
            self.found.answers[kind].append(Answer(prompt.name, ids, plain, loops(plain), rounds, seconds))

    def session(self, prompt: Prompt) -> tuple[list[int], fd.runtime.Session]:
        """The prompt's tokens, and a session for it."""
        model = self.model
        if prompt.chat:
            ids = model.chat_prompt([{"role": "user", "content": prompt.text}])
        else:
            ids = model.tokenizer.encode(prompt.text)
        return ids, model.session(min(model.plan.max_positions, len(ids) + self.options.tokens))

    def write(self, session: fd.runtime.Session, ids: list[int], decoder: Decoder) -> tuple[float, Generation]:
        """A greedy text, and the seconds of all but the prompt's own forward."""
        started = time.perf_counter()
        text = generate(session, ids, self.options.tokens, end_tokens=self.model.end_tokens, decoder=decoder)
        return time.perf_counter() - started - text.stats.prefill_seconds, text

    def same(
        self, session: fd.runtime.Session, ids: list[int], decoder: Decoder, plain: list[int]
    ) -> tuple[float, Generation]:
        seconds, text = self.write(session, ids, decoder)
        assert text.tokens == plain, f"{decoder} wrote another text than plain decoding"
        return seconds, text

    def shown(self, turns: Mapping[Key, Callable[..., Any]], repetitions: int) -> dict[Key, Callable[..., Any]]:
        """The same turns, which tell how many of them are done."""
        done, total = 0, len(turns) * (repetitions + 1)

        def counting(turn: Callable[..., Any], *arguments: Any) -> Any:
            nonlocal done
            done += 1
            self.progress.step(done, total)
            return turn(*arguments)

        return {name: partial(counting, turn) for name, turn in turns.items()}

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
            for prompt in spread_out(load(kind), self.options.drafters):
                self.progress.group(f"drafters, {kind}: {prompt.name}")
                ids, session = self.session(prompt)
                plain = self.write(session, ids, Autoregressive())[1].tokens
                rounds = {
                    name: self.same(session, ids, Speculative(drafter, max_draft=7), plain)[1].rounds
                    for name, drafter in drafters.items()
                }
                self.found.drafted.append((kind, Answer(prompt.name, ids, plain, loops(plain), rounds, {})))

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
                compare(self.shown(writers, repetitions), answer.prompt, self.options.tokens, repetitions, PAUSE, into)
                self.found.beside += [] if answer in self.found.beside else [answer]
        except Exception as error:
            self.report.skip(engine, f"its lookup failed: {error!r:.200}")


def run(options: Namespace) -> Report:
    report, progress, before = Report(__doc__), Progress(), isa()
    if options.quick:
        vars(options).update({name: min(getattr(options, name), most) for name, most in QUICK.items()})
    bench = Bench(options, report, progress)
    try:
        set_isa(options.levels[-1])
        bench.measure()
    except KeyboardInterrupt:
        report.note("interrupted: what was finished is shown")
    finally:
        progress.end()
        set_isa(before)
    tables(bench.found, report)
    report.note(
        f"{options.levels[-1]}, {bench.threads} threads, {options.tokens} new tokens at most; medians and quartiles of "
        f"{options.repetitions} turns, at open prompts of {options.open_repetitions}; ratios are of turns in the same round"
    )
    return report
