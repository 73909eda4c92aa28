"""How many guesses a round is worth: chances that are learned, costs that are known, and an account of what guessing may lose."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf

import numpy as np

from fastdistill.decode.costs import Costs
from fastdistill.decode.drafters.draft import Draft

# How many guesses are taken to have been right and wrong before any was, of those that are of no kind.
NOTHING_KNOWN = (0.5, 1.0)
# Counts of right and wrong guesses of a kind are multiplied by this whenever guesses of the kind are checked: texts change.
MEMORY = 0.8
FADING = 0.995  # the same in a round without such guesses, so that a kind that was given up is tried again
FAR = 32  # tokens: contexts that differ by fewer have rows of the same cost, as far as can be measured
FEW = 8  # guesses whose cost is known beforehand
NOTHING = np.empty(0, np.int64)

# What a round with guesses takes beyond its known cost is the median of the last rounds of each sort:
SAMPLES = 7  # rounds that are kept
ENOUGH = 3  # rounds from which on there is a median
# Bounds of it, and what is taken before there is one; the unit is a forward of one row.
MOST_EXTRA, LEAST_EXTRA, FIRST_EXTRA = 4.0, -0.5, 0.1


class Pace:
    """How often guesses were right, and what guessing has cost so far.

    Parameters
    ----------
    costs : Costs
        of forwards
    priors : Sequence[tuple[float, float]], default ()
        of each kind of guesses: see `Drafter`
    live : bool, default False
        costs are corrected by what rounds take: guessing costs more than its rows, and the machine may have been
        busier, or less, when costs were measured

    Attributes
    ----------
    invested
        leading guesses of the next draft that are checked whatever they are worth in that round
    """

    # Guessing may cost a text at most the sum of the two:
    credit = 2.0  # forwards of one row
    share = 0.04  # part of the seconds that plain decoding would have taken so far
    memory = MEMORY
    rests_first = False
    invested = 0

    def __init__(self, costs: Costs, priors: Sequence[tuple[float, float]] = (), live: bool = False) -> None:
        self._costs, self._live = costs, live
        self._together = 1  # texts that share the next forward; set by `shared_by`
        self._plain_took = deque[float](maxlen=SAMPLES)  # of rounds without guesses: seconds over what the costs say
        self._guessing_took = deque[tuple[float, float]](
            maxlen=SAMPLES
        )  # of rounds with some: seconds, and what the costs say
        # Seconds of a round with guesses beyond its cost: as known now, and as known when the last draft was chosen.
        self._extra = self._extra_then = 0.0
        # Rounds of plain decoding that are still to come, and that have passed since the last draft.  Live costs begin with some.
        self._resting, self._rested = ENOUGH if live and self.rests_first else 0, 0
        self._priors = (*priors, NOTHING_KNOWN)  # the last one, -1: of no kind
        # Right and wrong guesses of each kind, the prior included, and after how many rounds it was so: they have faded since.
        self._counts = [(*prior, 0) for prior in self._priors]
        self._rounds = 0
        self._plain = 0.0  # seconds that plain decoding would have taken
        self._gain = 0.0  # seconds that guessing has spared so far; below 0: has cost
        # What forwards of 1, 2, ... rows cost, and where: context // FAR.
        self._known_at, self._known_seconds = -1, list[float]()
        self._kinds: list[int] = []  # the kind of each guess that was chosen last; set by `choose`
        self._seconds = [0.0]  # seconds of a forward with 0, 1, ... of these guesses

    def shared_by(self, texts: int) -> None:
        """So many texts share the next forward, and its cost: what is known of that is of another number of them now."""
        if texts != self._together:
            self._together, self._known_at = texts, -1
            self._resting = min(self._resting, ENOUGH)  # among others it did not pay

    def choose(self, draft: Draft, context: int) -> np.ndarray:
        """The guesses with the most expected tokens a second, if their rows' cost is within what may be lost."""
        if self._rested:
            self._wake(context)
        self._extra_then = self._extra
        if not len(draft):
            self._kinds, self._seconds = [], [self.plain(context)]
            return NOTHING
        kinds = self._known(draft)
        self._seconds = seconds = self.first_seconds(len(draft), context)
        chances = self.chances(kinds, draft.parents.tolist())
        sure = min(self.invested, len(draft))
        ranked = [*range(sure), *sorted(range(sure, len(draft)), key=chances.__getitem__, reverse=True)]
        # Parents come first: no child is likelier.
        room, tokens, count, rate = self.room(seconds[0]), 1.0, sure, 0.0
        for guesses, guess in enumerate([None, *ranked]):
            tokens += 0.0 if guess is None else chances[guess]
            if guesses > sure and seconds[guesses] - seconds[0] > room:
                break
            if guesses >= sure and tokens > rate * seconds[guesses]:
                count, rate = guesses, tokens / seconds[guesses]
        chosen = sorted(ranked[:count])
        self._kinds = [kinds[guess] for guess in chosen]
        return np.array(chosen, np.int64)

    def seconds(self, guesses: np.ndarray, context: int) -> list[float]:
        """This text's part of a forward with so many guesses, as if the texts beside it made as many."""
        seconds = self._costs(self._together * (guesses + 1), context) / self._together
        return np.where(guesses > 0, seconds + self._extra, seconds).tolist()

    def first_seconds(self, guesses: int, context: int) -> list[float]:
        """The same with 0, 1, ... so many guesses, looked up anew as the context grows."""
        if self._known_at != context // FAR or len(self._known_seconds) <= guesses:
            rows = self._together * np.arange(1, max(guesses, FEW) + 2)
            self._known_seconds = (self._costs(rows, context) / self._together).tolist()
            self._known_at = context // FAR
        plain, *more = self._known_seconds[: guesses + 1]
        return [plain, *(seconds + self._extra for seconds in more)]

    def plain(self, context: int) -> float:
        """The same without guesses."""
        return self.first_seconds(0, context)[0]

    def room(self, plain: float) -> float:
        """Seconds that may be lost now, where a forward of one row takes `plain`."""
        return self.credit * plain + self.share * self._plain + self._gain

    def _known(self, draft: Draft) -> list[int]:
        """Of each guess: which line of the priors."""
        if draft.kinds is None:
            return [-1] * len(draft)
        return [kind if kind < len(self._priors) else -1 for kind in draft.kinds.tolist()]

    def chances(self, kinds: Sequence[int], parents: Sequence[int]) -> list[float]:
        """Of each guess to be right with all before it.

        A kind has a chance p of its own, which is not known: after r right and w wrong guesses p is as Beta(r, w), and
        n guesses in a row are right with the mean of p^n, the product of (r + i) / (r + w + i) over i < n.
        """
        chances, before = [1.0] * len(kinds), [0] * len(kinds)  # before: guesses of the same kind in a row
        for guess, (kind, parent) in enumerate(zip(kinds, parents, strict=True)):
            if parent >= 0:
                before[guess] = before[parent] + 1 if kinds[parent] == kind else 0
                chances[guess] = chances[parent]
            right, wrong = self._faded(kind)
            right += before[guess]
            chances[guess] *= right / (right + wrong)
        return chances

    def _faded(self, kind: int, once: float = 1.0) -> tuple[float, float]:
        """Right and wrong guesses of a kind as they count now, times `once` as far as they are not the prior's."""
        (prior_right, prior_wrong), (right, wrong, rounds) = self._priors[kind], self._counts[kind]
        left = once * FADING ** (self._rounds - rounds)
        return prior_right + left * (right - prior_right), prior_wrong + left * (wrong - prior_wrong)

    def rests(self, context: int) -> bool:
        """Whether the next round is one of plain decoding, because no draft would pay: then nobody is asked for one."""
        if not self._resting:
            return False
        self._seconds = [self.plain(context)]
        if self._live and not self._guessing_took:
            self._extra = FIRST_EXTRA * self._seconds[0]
        self._resting, self._rested = self._resting - 1, self._rested + 1
        return True

    def _wake(self, context: int) -> None:
        """Account for the rounds that were rested."""
        self._plain += self._rested * self.plain(context)
        self._rounds, self._rested = self._rounds + self._rested, 0

    def timed(self, guesses: int, seconds: float) -> None:
        """What the last round took, with so many guesses."""
        if not (self._live and 0 < seconds < inf):  # a clock that stands still says nothing
            return
        seconds /= self._together
        if guesses:
            self._guessing_took.append((seconds, self._seconds[guesses] - self._extra_then))
        else:
            self._plain_took.append(seconds / self._seconds[0])
        if min(len(self._plain_took), len(self._guessing_took)) >= ENOUGH:
            unit, plain = _median(self._plain_took), self._seconds[0]
            extra = _median(took / unit - known for took, known in self._guessing_took)
            self._extra = min(max(extra, LEAST_EXTRA * plain), MOST_EXTRA * plain)

    def learn(self, verdicts: np.ndarray) -> None:
        """What became of the guesses that were chosen: int8 (n,), 1 right, -1 wrong, 0 not asked."""
        checked, stood = dict[int, tuple[int, int]](), 0  # of each kind: right and wrong ones
        for kind, verdict in zip(self._kinds, verdicts.tolist(), strict=True):
            if verdict:
                right, wrong = checked.get(kind, (0, 0))
                checked[kind] = (right + 1, wrong) if verdict > 0 else (right, wrong + 1)
                stood += verdict > 0
        plain = (1 + stood) * self._seconds[0]
        self._plain += plain
        self._gain += plain - self._seconds[len(verdicts)]
        for kind, (more_right, more_wrong) in checked.items():
            before_right, before_wrong = self._faded(kind, self.memory)
            self._counts[kind] = before_right + more_right, before_wrong + more_wrong, self._rounds + 1
        self._rounds += 1


def _median(values: Iterable[float]) -> float:
    """As that of `statistics`, which brings decimal numbers and fractions along: a megabyte."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2
