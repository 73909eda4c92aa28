"""Several drafters, asked in turn: the first that has a guess gives the draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, Drafter, DraftRequest, DraftRun, with_kinds
from fastdistill.errors import ArgumentError
from fastdistill.messages import short


@dataclass(frozen=True, init=False)
class FirstOf:
    """Ask drafters in turn, and take the guesses of the first that has some: what is cheap and sure first.

    `FirstOf(PromptLookup(min_match=8), HeadDrafter(folder))` copies where the text repeats eight tokens, and asks the head
    elsewhere.

    Parameters
    ----------
    *drafters : Drafter
        two or more

    Attributes
    ----------
    priors : tuple[tuple[float, float], ...]
        those of all, one after another: see `Drafter`
    taps : tuple[str, ...]
        those that any of them reads
    reads_hidden, leaves_session : bool
        one of them does; all do

    Raises
    ------
    ArgumentError
    """

    drafters: tuple[Drafter, ...]

    def __init__(self, *drafters: Drafter) -> None:
        wrong = [each for each in drafters if isinstance(each, type) or not hasattr(each, "start")]
        if wrong or len(drafters) < 2:
            raise ArgumentError(
                f"FirstOf needs two drafters or more, such as PromptLookup(), got {short(wrong[0] if wrong else drafters)}"
            )
        object.__setattr__(self, "drafters", drafters)

    @property
    def priors(self) -> tuple[tuple[float, float], ...]:
        return tuple(pair for each in self.drafters for pair in getattr(each, "priors", ()))

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self.drafters for name in getattr(each, "taps", ())))

    @property
    def reads_hidden(self) -> bool:
        return any(getattr(each, "reads_hidden", False) for each in self.drafters)

    @property
    def leaves_session(self) -> bool:
        return all(getattr(each, "leaves_session", False) for each in self.drafters)

    def start(self, request: DraftRequest) -> FirstOfRun:
        counts = [len(getattr(each, "priors", ())) for each in self.drafters]
        return FirstOfRun([each.start(request) for each in self.drafters], [0, *accumulate(counts)])


class FirstOfRun:
    def __init__(self, runs: Sequence[DraftRun], first_kinds: Sequence[int]) -> None:
        self._runs, self._first_kinds = runs, first_kinds

    def propose(self, budget: int) -> Draft:
        for run, first in zip(self._runs, self._first_kinds, strict=False):
            draft = run.propose(budget)
            if len(draft):
                kinds = draft.kinds
                if kinds is None or first == 0:
                    return draft
                return with_kinds(draft, np.where(kinds < 0, kinds, kinds + first))
        return NO_GUESSES

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        for run in self._runs:
            run.accept(tokens, path, taps)
