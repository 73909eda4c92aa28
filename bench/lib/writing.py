"""Decoders write greedy texts in turns: timed after the prompt's own forward, and compared with plain decoding's."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import fastdistill as fd
from bench.lib.answers import PLAIN, Answer
from bench.lib.progress import Progress
from bench.lib.prompts import Prompt, load, loops
from bench.lib.report import Report
from bench.lib.timing import Key, Samples, interleave
from fastdistill.decode import Autoregressive, Costs, Decoder, Generation, generate
from fastdistill.kernels import default_threads, isa, set_isa


def add_writing_arguments(parser: ArgumentParser, numbers: Mapping[str, tuple[int, str]], quick: str) -> None:
    """All threads of the best level, three turns; and by name each number's default and what it counts."""
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=3)
    for name, (default, about) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{about} (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help=quick)


def spread_out(items: Sequence[Any], count: int) -> list[Any]:
    """So many of them at even distances: prompts of one sort are neighbours."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


@dataclass(frozen=True, eq=False)
class Task:
    """One prompt to go on from, whoever does."""

    name: str
    prompt: list[int]
    session: Callable[[tuple[str, ...]], Any]  # for the prompt and the tokens, with these taps
    tokens: int  # most new ones
    end_tokens: frozenset[int]
    costs: Costs | None = None  # of forwards, for decoders that weigh their guesses

    def write(self, decoder: Decoder) -> tuple[float, Generation]:
        """A greedy text, and the seconds of all but the prompt's own forward."""
        started = time.perf_counter()
        ends, costs, session = self.end_tokens, self.costs, self.session(getattr(decoder, "taps", ()))
        text = generate(session, self.prompt, self.tokens, end_tokens=ends, decoder=decoder, costs=costs)
        return time.perf_counter() - started - text.stats.prefill_seconds, text

    def same(self, decoder: Decoder, plain: list[int]) -> tuple[float, Generation]:
        """The same where the text has to be this one."""
        seconds, text = self.write(decoder)
        assert text.tokens == plain, f"{decoder} wrote another text than plain decoding"
        return seconds, text


class Writing:
    """A bench of decoders: `measure` goes part by part, and what is finished stays when one is interrupted."""

    def __init__(self, options: Namespace, report: Report) -> None:
        self.options, self.report, self.progress = options, report, Progress()
        self.costs: Costs | None = None  # from `load` on
        self.threads = max(options.threads)

    def measure(self) -> None:
        raise NotImplementedError

    def run(self, quick: Mapping[str, int]) -> None:
        """Measure, on the level that was asked for; under --quick with these numbers at most."""
        if self.options.quick:
            vars(self.options).update({name: min(getattr(self.options, name), most) for name, most in quick.items()})
        before = isa()
        try:
            set_isa(self.options.levels[-1])
            self.measure()
        except KeyboardInterrupt:
            self.report.note("interrupted: what was finished is shown")
        finally:
            self.progress.end()
            set_isa(before)

    def load(self) -> Costs:
        """The model, and what its forwards cost here."""
        self.progress.group("loading")
        self.model = fd.load(self.options.model, threads=self.threads)
        self.progress.group("cost of a forward")
        self.costs = self.model.measure_costs()
        return self.costs

    def tasks(self, kind: str, count: int, about: str = "") -> Iterator[Task]:
        """Some prompts of a kind; the progress says which one is being worked on."""
        prompts = spread_out(load(kind), count)
        for number, prompt in enumerate(prompts, 1):
            self.progress.group(f"{about or kind} {number} of {len(prompts)}: {prompt.name}")
            yield self.task(prompt)

    def task(self, prompt: Prompt) -> Task:
        model, tokens = self.model, self.options.tokens
        if prompt.chat:
            ids = model.chat_prompt([{"role": "user", "content": prompt.text}])
        else:
            ids = model.tokenizer.encode(prompt.text)
        capacity = min(model.plan.max_positions, len(ids) + tokens)
        sessions = cache(lambda taps: model.session(capacity, taps=taps))
        return Task(prompt.name, ids, sessions, tokens, model.end_tokens, self.costs)

    def answer(self, task: Task, others: Mapping[str, Decoder], repetitions: int, warm_up: int = 1) -> list[Answer]:
        """Plain decoding and the others, in turns, the first of them checked but not counted; none of an empty text."""
        plain = task.write(Autoregressive())[1].tokens
        if len(plain) < 2:
            self.report.skip(task.name, "the model ends the text at once")
            return []
        contestants = {PLAIN: Autoregressive(), **others}
        turns = {name: partial(task.same, one, plain) for name, one in contestants.items()}
        shown = self.shown(turns, warm_up + repetitions)
        texts = interleave(shown, repetitions, warm_up=warm_up)  # no pause: all run on one pool of threads
        seconds = {name: Samples.of(taken for taken, _ in some) for name, some in texts.items()}
        rounds = {name: texts[name][-1][1].rounds for name in others}
        return [Answer(task.name, task.prompt, plain, loops(plain), rounds, seconds)]

    def shown(self, turns: Mapping[Key, Callable[..., Any]], rounds: int) -> dict[Key, Callable[..., Any]]:
        """The same turns, which tell how many of them are done."""
        done, total = 0, len(turns) * rounds

        def counting(turn: Callable[..., Any], *arguments: Any) -> Any:
            nonlocal done
            done += 1
            self.progress.step(done, total)
            return turn(*arguments)

        return {name: partial(counting, turn) for name, turn in turns.items()}
