"""Guess where guessing pays, on this machine and for this text; never the text of another decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdistill.decode.costs import Costs
from fastdistill.decode.drafters.draft import Draft, Drafter
from fastdistill.decode.drafters.prompt_lookup import KINDS, PromptLookup
from fastdistill.decode.request import Request
from fastdistill.decode.speculative import Speculative, SpeculativeRun
from fastdistill.errors import ArgumentError

CREDIT = 2.0  # forwards of one row that a text may lose at first,
SHARE = 0.04  # and later on this part of what plain decoding would have cost

# How often a copied token is right, by the length of the match before it; and of guesses of which nothing is known.
PRIOR = (0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.87, 0.88, 0.9, 0.9, 0.9, 0.92, 0.92, 0.92)
UNKNOWN = 0.3
WEIGHT = 3.0
MEMORY = 0.98  # of what was seen, one round later: a text that begins to copy is noticed again


@dataclass(frozen=True)
class Auto:
    """Speculative decoding that weighs each draft: the text of plain decoding, in about its time at worst.

    costs      of forwards on this machine: `Model.costs`, or `measure_costs`
    drafter    guesses are taken to cost nothing
    max_draft  most guesses a round

    Each round takes the guesses (a chain, a part of a tree, or none) with the most expected tokens a second, from how often
    guesses of their kind were right before; and no more than it can lose without costing the text over 4 %.

    raises  ArgumentError
    """

    costs: Costs
    drafter: Drafter = field(default_factory=PromptLookup)
    max_draft: int = 15

    def __post_init__(self) -> None:
        if not isinstance(self.costs, Costs):
            raise ArgumentError(f"costs must be Costs, got {type(self.costs).__name__}")
        Speculative(self.drafter, max_draft=self.max_draft)  # checks them

    def start(self, session: Any, request: Request) -> SpeculativeRun:
        pace = Pace(self.costs)
        return SpeculativeRun(Speculative(self.drafter, max_draft=self.max_draft), session, request, pace)


class Pace:
    """How often guesses were right, and what guessing has cost so far."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._seen: dict[
            int, tuple[float, float, int]
        ] = {}  # of a kind: right guesses, all guesses, and after which round
        self._round = 0
        self._gain = 0.0  # seconds: plain decoding's less ours
        self._plain = 0.0  # seconds that plain decoding would have taken

    def choose(self, draft: Draft, context: int) -> Draft:
        """The part of a draft with the most expected tokens a second, its rows' cost within what may be lost."""
        if len(draft) == 0:
            return draft
        chances = [self._chance(kind) for kind in _kinds(draft)]
        for guess, parent in enumerate(draft.parents.tolist()):
            chances[guess] *= chances[parent] if parent >= 0 else 1.0  # of being reached, and right
        ranked = np.argsort(-np.array(chances), kind="stable")  # parents first: no child is likelier, or comes before
        seconds = self._costs.by_rows(context)[: len(draft) + 1]
        expected = 1 + np.cumsum([0.0, *(chances[guess] for guess in ranked)])[: len(seconds)]
        room = CREDIT * seconds[0] + SHARE * self._plain + self._gain
        worth = np.where(seconds - seconds[0] <= room, expected / seconds, 0.0)
        worth[0] = 1 / seconds[0]
        return draft.only(np.sort(ranked[: int(worth.argmax())]))

    def learn(self, draft: Draft, verdicts: np.ndarray, context: int) -> None:
        """What became of the guesses: int8 (n,), 1 right, -1 wrong, 0 not asked."""
        seconds = self._costs.by_rows(context)
        self._plain += (1 + int((verdicts > 0).sum())) * seconds[0]
        self._gain += (1 + int((verdicts > 0).sum())) * seconds[0] - seconds[min(len(draft), len(seconds) - 1)]
        for kind, verdict in zip(_kinds(draft), verdicts.tolist(), strict=True):
            if verdict:
                right, asked = self._remembered(kind)
                self._seen[kind] = right + (verdict > 0), asked + 1, self._round
        self._round += 1

    def _chance(self, kind: int) -> float:
        """Of a guess to be right where its parent is: what was seen, and as if WEIGHT guesses had been seen before."""
        before = PRIOR[min(kind, len(PRIOR) - 1)] if 0 <= kind < KINDS else UNKNOWN
        right, asked = self._remembered(kind)
        return (right + WEIGHT * before) / (asked + WEIGHT)

    def _remembered(self, kind: int) -> tuple[float, float]:
        right, asked, since = self._seen.get(kind, (0.0, 0.0, self._round))
        left = MEMORY ** (self._round - since)
        return right * left, asked * left


def _kinds(draft: Draft) -> list[int]:
    """A drafter that tells no kinds has one."""
    return [-1] * len(draft) if draft.kinds is None else draft.kinds.tolist()
