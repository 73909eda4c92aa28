"""Answers that several decoders gave, in figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.lib.targets import Target, Value
from bench.lib.timing import Samples
from fastdistill.decode import Costs, Round

PLAIN, AUTO = "plain", "auto"


@dataclass(frozen=True, eq=False)
class Answer:
    """The same tokens from plain decoding and from every other decoder."""

    name: str
    prompt: list[int]
    tokens: list[int]
    loops: bool  # it merely repeats itself, which every drafter guesses: left out of medians and sums
    rounds: Mapping[str, Sequence[Round]]  # by decoder
    seconds: Mapping[str, Samples]  # after the first token, by decoder, plain decoding's too

    def rate(self, decoder: str) -> Samples:
        """Tokens a second."""
        return (len(self.tokens) - 1) / self.seconds[decoder]

    def speed_up(self, decoder: str) -> Samples:
        """Over plain decoding, turn by turn."""
        return self.seconds[PLAIN] / self.seconds[decoder]

    def plain_cost(self, costs: Costs) -> float:
        """Seconds on the table: a forward of one row for each token after the first."""
        first = len(self.prompt)
        return float(sum(costs.by_rows(context)[0] for context in range(first, first + len(self.tokens) - 1)))

    def cost(self, costs: Costs, decoder: str) -> float:
        """Seconds on the table, or beyond it, of the rounds' forwards: the same for the same guesses."""
        seconds, context = 0.0, len(self.prompt)
        for round in self.rounds[decoder]:
            seconds += float(costs(np.array([round.drafted + 1]), context)[0])  # and the row before the guesses
            context += round.accepted + 1
        return seconds

    def relative_cost(self, costs: Costs, decoder: str) -> float:
        """Of plain decoding's."""
        return self.cost(costs, decoder) / self.plain_cost(costs)


@dataclass(frozen=True)
class Guesses:
    """What became of the guesses of one or many texts.

    asked, right  int (depths,): guesses at each depth whose parents stood, and those of them that stood too
    """

    new_tokens: int  # after the first
    forwards: int
    drafted: int
    accepted: int
    recycled: int  # of the accepted
    asked: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, answers: Iterable[Answer], decoder: str) -> Guesses:
        answers = list(answers)
        rounds = [round for answer in answers for round in answer.rounds[decoder]]
        depths = max((round.drafted for round in rounds), default=0)
        asked, right = np.zeros(depths, np.int64), np.zeros(depths, np.int64)
        for round in rounds:
            right[: round.accepted] += 1
            asked[: round.accepted + bool(round.refused)] += 1
        new = sum(len(answer.tokens) - 1 for answer in answers)
        drafted, accepted = sum(round.drafted for round in rounds), sum(round.accepted for round in rounds)
        recycled = sum(round.recycled for round in rounds)
        return cls(new, len(rounds), drafted, accepted, recycled, asked, right)

    @property
    def tokens_per_forward(self) -> float:
        return self.new_tokens / self.forwards if self.forwards else 0.0

    @property
    def rows_per_forward(self) -> float:
        """The row before the guesses, and these."""
        return 1 + self.drafted / self.forwards if self.forwards else 0.0

    @property
    def acceptance(self) -> str:
        """The part of all guesses that stood."""
        return f"{self.accepted / self.drafted:.0%}" if self.drafted else "-"

    def at(self, depth: int) -> str:
        """Of the guesses at this depth (1: right after the seed) whose parents stood, the part that stood."""
        if depth > len(self.asked) or not self.asked[depth - 1]:
            return "-"
        return f"{self.right[depth - 1] / self.asked[depth - 1]:.0%}"


def counted(answers: Iterable[Answer]) -> list[Answer]:
    """Those that do not loop."""
    return [answer for answer in answers if not answer.loops]


def median_speed_up(answers: Iterable[Answer], decoder: str) -> float:
    """Over the prompts; each counts by its own median."""
    return float(np.median([answer.speed_up(decoder).median for answer in answers]))


def median_time(answers: Iterable[Answer], decoder: str) -> float:
    """Of plain decoding's; otherwise as the speed-up."""
    return float(np.median([(answer.seconds[decoder] / answer.seconds[PLAIN]).median for answer in answers]))


def slowest(answers: Iterable[Answer], decoder: str) -> float:
    """The least speed-up of a prompt."""
    return min(answer.speed_up(decoder).median for answer in answers)


def summed_cost(answers: Iterable[Answer], costs: Costs, decoder: str) -> float:
    """All rounds of all prompts, of what plain decoding would have cost."""
    answers = list(answers)
    return sum(answer.cost(costs, decoder) for answer in answers) / sum(answer.plain_cost(costs) for answer in answers)


def by_cost(answers: Iterable[Answer], costs: Costs, decoder: str) -> float:
    """The median speed-up if nothing but forwards took time."""
    return float(np.median([1 / answer.relative_cost(costs, decoder) for answer in answers]))


def perfect(costs: Costs, context: int) -> np.ndarray:
    """The speed-up of forwards of 1, 2, ... rows whose guesses are all right, float64 (rows[-1],)."""
    seconds = costs.by_rows(context)
    return np.arange(1, len(seconds) + 1) * seconds[0] / seconds


COPY = "copy, {}: speed-up, median of the prompts"
TOTAL, DEAREST = "open, auto: cost on the table, all prompts", "open, auto: cost on the table, dearest prompt"
TYPICAL, SLOWEST = "open, auto: paired speed, median of the prompts", "open, auto: paired speed, slowest prompt"


def targets(decoders: Iterable[str]) -> list[Target]:
    """What guessing is meant to reach; the two extremes are of all prompts, looping ones too."""
    table = [Target(work, Value(work), ">=", 3.0, "x", PLAIN) for work in map(COPY.format, decoders)]
    table += [Target(work, Value(work), "<=", 1.05, "x", PLAIN) for work in (TOTAL, DEAREST)]
    return table + [Target(work, Value(work), ">=", 0.95, "x", PLAIN) for work in (TYPICAL, SLOWEST)]


def figures(
    copies: Sequence[Answer], opens: Sequence[Answer], costs: Costs, decoders: Iterable[str]
) -> dict[str, float]:
    """What was reached of the targets' works, by name; nothing for what was not measured."""
    found: dict[str, float] = {}
    if some := counted(copies):
        found |= {COPY.format(decoder): median_speed_up(some, decoder) for decoder in decoders}
    if some := counted(opens):
        found[TOTAL], found[TYPICAL] = summed_cost(some, costs, AUTO), median_speed_up(some, AUTO)
    if opens:
        found[DEAREST] = max(answer.relative_cost(costs, AUTO) for answer in opens)
        found[SLOWEST] = slowest(opens, AUTO)
    return found
