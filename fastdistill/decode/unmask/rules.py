"""Which masked positions to fill after a forward: every rule in terms of the kernel `unmask_select`.

A rule is frozen; what it needs to know of a step it is told (`Step`). `selection` is what the kernel gets; a schedule
has `quotas` beside; a rule that picks positions by itself has `also`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import check_choice, check_integer, check_integers, check_number
from fastdistill.decode.unmask.learned_filter import LearnedFilter
from fastdistill.decode.unmask.schedules import KINDS, quotas_of_blocks
from fastdistill.errors import ArgumentError
from fastdistill.kernels.forward.row_statistics import RowStatistics
from fastdistill.kernels.unmask.unmask_select import UnmaskRule

SCORES = ("confidence", "margin", "entropy", "random")


class Step(NamedTuple):
    """What a forward has said of some positions of the answer.

    Attributes
    ----------
    block : range
        places in the answer that the current block covers
    places : int32 (n,)
        of the positions, in the answer
    tokens : int32 (n,)
        what the model would put there
    confidence : float32 (n,)
        log probability of that
    statistics : RowStatistics of (n,) rows
        all that is known of the model's laws, or distributions, there
    """

    block: range
    places: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    statistics: RowStatistics

    def part(self, which: np.ndarray) -> Step:
        """Of some of the positions, bool (n,)."""
        if which.all():
            return self
        places, tokens, confidence = (array[which] for array in self[1:4])
        return Step(self.block, places, tokens, confidence, RowStatistics(*(field[which] for field in self.statistics)))


def log_of(probability: float) -> np.float32:
    """Its logarithm as confidences are compared with it; -inf of 0."""
    with np.errstate(divide="ignore"):
        return np.float32(np.log(np.float32(probability)))


class Rule:
    """What all rules share."""

    lookahead: int = 0  # blocks behind the current one in which positions may be filled as well

    def __post_init__(self) -> None:
        self.selection  # noqa: B018 - the kernel's rule checks what it is made of

    @property
    def selection(self) -> UnmaskRule:
        """What the kernel is told."""
        raise NotImplementedError

    def quotas(self, sizes: Sequence[int]) -> list[list[int]] | None:
        """Of each block, how many positions to fill in each step; None: that depends on the model alone."""
        return None

    def also(self, step: Step) -> np.ndarray | None:
        """Positions to fill beside those that the kernel selects, bool (n,)."""
        return None


@dataclass(frozen=True)
class Schedule(Rule):
    """So many positions a step, fixed beforehand: the best by a score (LLaDA, Dream, MaskGIT; ASS with kind="ascending").

    Parameters
    ----------
    steps : int, optional
        in all, dealt to the blocks; None: one a position ("ascending": floor(log2) of a block's positions)
    score : str, default "confidence"
        "confidence": the probability of the likeliest token; "margin": that minus the second one's; "entropy": the
        lowest first; "random": in an order by chance, the same in every step
    kind : str, default "linear"
        how positions are dealt to steps: see `quotas`

    Raises
    ------
    ArgumentError
    """

    steps: int | None = None
    score: str = "confidence"
    kind: str = "linear"

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_integer("steps", self.steps, 1, 1 << 30)
        check_choice("score", self.score, SCORES)
        check_choice("kind", self.kind, KINDS)

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule("given" if self.score == "random" else self.score)

    def quotas(self, sizes: Sequence[int]) -> list[list[int]]:
        return quotas_of_blocks(self.kind, list(sizes), self.steps)


@dataclass(frozen=True)
class Threshold(Rule):
    """All positions whose likeliest token is at least so probable (Fast-dLLM).

    Parameters
    ----------
    threshold : float, default 0.9
        a probability, 0..1
    least : int, default 1
        fill the best so many in any case, 1 or more
    most : int, optional
        never more than so many in one step; None: any number

    Raises
    ------
    ArgumentError
    """

    threshold: float = 0.9
    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        check_integer(
            "least", self.least, 1, 1 << 30
        )  # the kernel may take none, but then a text would never be filled
        super().__post_init__()

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule("confidence", threshold=self.threshold, least=self.least, most=self.most)


@dataclass(frozen=True)
class Adaptive(Threshold):
    """`Threshold` within a budget of positions a step: confidence-adaptive decoding (CD4LM).

    Parameters
    ----------
    threshold : float, default 0.95
        a probability, 0..1
    least : int, default 1
        fill the best so many in any case, 1 or more
    most : int | None, default 4
        never more than so many in one step

    Raises
    ------
    ArgumentError
    """

    threshold: float = 0.95
    most: int | None = 4


@dataclass(frozen=True)
class EntropyThreshold(Rule):
    """All positions whose entropy is at most so many nats, and the lowest in any case (dParallel).

    Parameters
    ----------
    threshold : float, default 0.5
        nats, 0 or more

    Raises
    ------
    ArgumentError
    """

    threshold: float = 0.5

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule("entropy", threshold=self.threshold)


@dataclass(frozen=True)
class Factor(Rule):
    """The n most probable positions, for the largest n with (n + 1)(1 - c_n) < factor, c_n the n-th one's probability (Fast-dLLM).

    With factor 1 these tokens together are the likeliest ones, whatever depends on what (Fast-dLLM, theorem 1).

    Parameters
    ----------
    factor : float, default 1.0
        above 1 more positions at once, below 1 fewer

    Raises
    ------
    ArgumentError
    """

    factor: float = 1.0

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule("confidence", factor=self.factor)


@dataclass(frozen=True)
class EntropyBudget(Rule):
    """Positions in order of entropy while what filling them at once may lose stays within so many nats (EB-Sampler).

    Parameters
    ----------
    budget : float, default 0.1
        nats a step, 0 or more: the sum of the entropies, the largest aside

    Raises
    ------
    ArgumentError
    """

    budget: float = 0.1

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule("entropy", budget=self.budget)


@dataclass(frozen=True)
class Explore(Rule):
    """`Factor` over the current block and some after it; where that fills few positions, an uncertain one as well (ETE).

    An uncertain token says more than a certain one: what depends on it becomes certain. The text is not the one
    `Factor` writes.

    Parameters
    ----------
    factor : float, default 1.0
        as of `Factor`
    below : int, default 1
        explore where fewer positions than these are certain; 0: never
    lookahead : int, default 1
        blocks behind the current one in which certain positions are filled as well

    Raises
    ------
    ArgumentError
    """

    factor: float = 1.0
    below: int = 1
    lookahead: int = 1

    def __post_init__(self) -> None:
        check_integer("below", self.below, 0, 1 << 30)
        check_integer("lookahead", self.lookahead, 0, 1 << 30)
        super().__post_init__()

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule("confidence", factor=self.factor, explore=self.below)


@dataclass(frozen=True)
class Learned(Rule):
    """A schedule, and all positions that a small network takes to be right already (Learn2PD).

    Parameters
    ----------
    filter : LearnedFilter
        reads the confidences of a whole block: see `LearnedFilter`
    accept : float, default 0.96
        positions that it takes to be right with at least this probability
    schedule : Schedule, optional
        how many are filled in any case, and which

    Raises
    ------
    ArgumentError
    """

    filter: LearnedFilter
    accept: float = 0.96
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not isinstance(self.filter, LearnedFilter):
            raise ArgumentError(f"filter must be an unmask.LearnedFilter, got {type(self.filter).__name__}")
        _check_schedule(self.schedule)
        check_number("accept", self.accept, 0, 1)

    @property
    def selection(self) -> UnmaskRule:
        return self.schedule.selection

    def quotas(self, sizes: Sequence[int]) -> list[list[int]]:
        return self.schedule.quotas(sizes)

    def also(self, step: Step) -> np.ndarray:
        with np.errstate(divide="ignore"):
            least = np.log(np.float64(self.accept)) - np.log1p(-np.float64(self.accept))
        within = _within(step)
        right = np.zeros(len(step.places), bool)
        right[within] = (self.filter(block_confidence(step, self.filter.width)) >= least)[
            step.places[within] - step.block.start
        ]
        return right


@dataclass(frozen=True)
class Oracle(Rule):
    """All positions whose token is already that of a known answer, else the surest gets its own: the fewest forwards for a filter.

    Parameters
    ----------
    answer : Sequence[int]
        tokens of the whole answer, none of them the mask
    width : int
        of the examples: positions of a block
    examples : list[tuple[np.ndarray, np.ndarray]], optional
        receives a pair each step, for `LearnedFilter.fit`: confidences float32 (width,), which of them were right bool
        (width,)

    Raises
    ------
    ArgumentError
    """

    answer: Sequence[int]
    width: int
    examples: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_integers("answer", self.answer, 0, (1 << 31) - 1)
        check_integer("width", self.width, 1, 1 << 16)

    @property
    def selection(self) -> UnmaskRule:
        return UnmaskRule()

    def quotas(self, sizes: Sequence[int]) -> list[list[int]]:
        return [[0] * size for size in sizes]  # the kernel selects nothing: `also` does

    def also(self, step: Step) -> np.ndarray:
        if len(self.answer) < step.block.stop:
            raise ArgumentError(
                f"answer has {len(self.answer)} tokens, fewer than the {step.block.stop} positions to fill"
            )
        right = step.tokens == np.asarray(self.answer)[step.places]
        within = _within(step)
        labels = np.ones(self.width, bool)
        labels[step.places[within] - step.block.start] = right[within]
        self.examples.append((block_confidence(step, self.width), labels))
        if not right.any():
            surest = int(step.confidence.argmax())
            step.tokens[surest], right[surest] = self.answer[step.places[surest]], True
        return right


def block_confidence(step: Step, width: int) -> np.ndarray:
    """What a learned filter reads, float32 (width,): probabilities by place in the block, 1 where nothing is masked or there is no place.

    Raises
    ------
    ArgumentError
        where the block is wider
    """
    if len(step.block) > width:
        raise ArgumentError(f"the filter reads blocks of at most {width} positions, got one of {len(step.block)}")
    seen = np.ones(width, np.float32)
    within = _within(step)
    seen[step.places[within] - step.block.start] = np.exp(step.confidence[within])
    return seen


def _within(step: Step) -> np.ndarray:
    return (step.places >= step.block.start) & (step.places < step.block.stop)


def _check_schedule(schedule: object) -> None:
    if not isinstance(schedule, Schedule):
        raise ArgumentError(f"schedule must be an unmask.Schedule, got {type(schedule).__name__}")
