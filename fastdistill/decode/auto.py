"""Guess where guessing pays, on this machine and for this text; never the text of another decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdistill.decode.costs import Costs
from fastdistill.decode.drafters.draft import Draft, Drafter
from fastdistill.decode.drafters.prompt_lookup import PromptLookup
from fastdistill.decode.request import Request
from fastdistill.decode.speculative import Speculative, SpeculativeRun
from fastdistill.errors import ArgumentError

CREDIT = 2.0  # forwards of one row that a text may lose at first,
SHARE = 0.04  # and later on this part of what plain decoding would have cost

NOTHING_KNOWN = (
    0.5,
    1.0,
)  # of guesses that are of no kind: how many are taken to have been right and wrong before any was
MEMORY = 0.8  # of what was seen of a kind, at its next draft: texts change,
FADING = 0.995  # and each round without one: what was given up is tried again


@dataclass(frozen=True)
class Auto:
    """Speculative decoding that weighs each draft: the text of plain decoding, in about its time at worst.

    costs      of forwards on this machine: `Model.costs`, or `measure_costs`.  None: the model's; of a function, where nobody has timed
               it, a row is taken to cost an eighth of a forward
    drafter    its guesses are taken to cost nothing
    max_draft  most guesses a round

    Each round takes the guesses (a chain, a part of a tree, or none) with the most expected tokens a second, from how often
    guesses of their kind were right before; and no more than it can lose without costing the text over 4 %.

    raises  ArgumentError
    """

    costs: Costs | None = None
    drafter: Drafter = field(default_factory=lambda: PromptLookup(min_match=1))
    max_draft: int = 31

    def __post_init__(self) -> None:
        if not isinstance(self.costs, Costs | None):
            raise ArgumentError(f"costs must be Costs, got {type(self.costs).__name__}")
        Speculative(self.drafter, max_draft=self.max_draft)  # checks them

    def start(self, session: Any, request: Request) -> SpeculativeRun:
        pace = Pace(self.costs or request.costs, getattr(self.drafter, "priors", ()), request.together)
        return SpeculativeRun(Speculative(self.drafter, max_draft=self.max_draft), session, request, pace)


class Pace:
    """How often guesses were right, and what guessing has cost so far."""

    def __init__(self, costs: Costs, priors: Sequence[tuple[float, float]] = (), together: int = 1) -> None:
        self._costs, self._together = costs, together
        self._priors = (*priors, NOTHING_KNOWN)  # the last one, -1: of no kind
        self._right = [right for right, _ in self._priors]  # of each kind: what was seen of late, the prior included
        self._wrong = [wrong for _, wrong in self._priors]
        self._plain = 0.0  # seconds that plain decoding would have taken
        self._gain = 0.0  # of which guessing has spared so many, or cost more where below 0
        self._kinds: list[int] = []  # of the guesses that were chosen last
        self._seconds = [0.0]  # of a forward with 0, 1, ... of them

    def choose(self, draft: Draft, context: int) -> np.ndarray:
        """The guesses with the most expected tokens a second, if their rows' cost is within what may be lost."""
        kinds = self._known(draft)
        counts = self._together * np.arange(1, len(draft) + 2)
        # This text's part of a forward, as if the texts beside it guessed as much.
        self._seconds = seconds = (self._costs(counts, context) / self._together).tolist()
        chances = self.chances(kinds, draft.parents.tolist())
        ranked = sorted(range(len(draft)), key=chances.__getitem__, reverse=True)  # parents first: no child is likelier
        room = CREDIT * seconds[0] + SHARE * self._plain + self._gain
        tokens, count, rate = 1.0, 0, 1 / seconds[0]
        for guesses, guess in enumerate(ranked, 1):
            tokens += chances[guess]
            if seconds[guesses] - seconds[0] > room:
                break
            if tokens > rate * seconds[guesses]:
                count, rate = guesses, tokens / seconds[guesses]
        chosen = sorted(ranked[:count])
        self._kinds = [kinds[guess] for guess in chosen]
        return np.array(chosen, np.int64)

    def _known(self, draft: Draft) -> list[int]:
        """Of each guess: which line of the priors."""
        if draft.kinds is None:
            return [-1] * len(draft)
        return [kind if kind < len(self._priors) else -1 for kind in draft.kinds.tolist()]

    def chances(self, kinds: Sequence[int], parents: Sequence[int]) -> list[float]:
        """Of each guess to be right with all before it.

        A kind has a chance p of its own, which is not known: after r right and w wrong guesses p is as Beta(r, w), and n guesses in a
        row are right with the mean of p^n, the product of (r + i) / (r + w + i) over i < n.
        """
        chances, before = [1.0] * len(kinds), [0] * len(kinds)  # before: guesses of the same kind in a row
        for guess, (kind, parent) in enumerate(zip(kinds, parents, strict=True)):
            if parent >= 0:
                before[guess] = before[parent] + 1 if kinds[parent] == kind else 0
                chances[guess] = chances[parent]
            right = self._right[kind] + before[guess]
            chances[guess] *= right / (right + self._wrong[kind])
        return chances

    def learn(self, verdicts: np.ndarray) -> None:
        """What became of the guesses that were chosen: int8 (n,), 1 right, -1 wrong, 0 not asked."""
        right, wrong = [0] * len(self._priors), [0] * len(self._priors)
        for kind, verdict in zip(self._kinds, verdicts.tolist(), strict=True):
            right[kind] += verdict > 0
            wrong[kind] += verdict < 0
        plain = (1 + sum(right)) * self._seconds[0]
        self._plain += plain
        self._gain += plain - self._seconds[len(verdicts)]
        for kind, (before_right, before_wrong) in enumerate(self._priors):
            left = MEMORY if right[kind] + wrong[kind] else FADING
            self._right[kind] = before_right + left * (self._right[kind] - before_right) + right[kind]
            self._wrong[kind] = before_wrong + left * (self._wrong[kind] - before_wrong) + wrong[kind]
