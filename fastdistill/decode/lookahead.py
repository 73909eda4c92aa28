"""Lookahead decoding: a window of Jacobi trajectories makes n-grams, a pool keeps them, and one forward checks those that fit.

The window has `window` columns and n - 1 levels. A column holds tokens for successive positions, each drawn after the
one above it, one more in every round; so a column that has been drawn through is an n-gram that the model is likely to
write. Those that begin with the text's last token are guesses. Window and guesses are one tree below the last token
(`kernels.lookahead_layout`), which `SpeculativeRun` checks as any other: the text is that of plain decoding at any
temperature. Source: Fu et al. 2024, Lookahead decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastdistill.arguments import check_choice, check_flag, check_integer
from fastdistill.decode.costs import Costs, check_costs
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest
from fastdistill.decode.jacobi import ASLEEP, AWAKE, INITS, check_pool, continuations, initial
from fastdistill.decode.pace import FADING, MEMORY, Pace
from fastdistill.decode.request import Request
from fastdistill.decode.speculative import Speculative, SpeculativeRun
from fastdistill.errors import ArgumentError
from fastdistill.kernels.fixed_point.lookahead_layout import lookahead_layout
from fastdistill.kernels.fixed_point.ngram_pool import NgramPool
from fastdistill.runtime.forward import SessionLike

# Kinds of guesses: the n-gram that was seen last, those seen before it, and cells of the window.
LATEST, EARLIER, CELL = range(3)
PRIORS = ((1.0, 2.0), (0.5, 2.0), (0.1, 2.0))
NONE = np.empty(0, np.int32)
MOST_ROWS = 1 << 10


@dataclass(frozen=True)
class Lookahead:
    """Guesses from a pool of n-grams that a window of Jacobi trajectories fills: the text of plain decoding, at any temperature.

    Parameters
    ----------
    window : int, default 7
        columns of the window, each costing ngram - 1 rows a forward; 0: none, the pool alone
    ngram : int, default 5
        tokens of an n-gram: the text's last one, and ngram - 1 guesses
    guesses : int, default 7
        most n-grams that are checked at once
    init : str, default "prompt"
        a window's first tokens: "prompt", tokens of the prompt by chance; "random", any tokens; "copy", the text's last
    from_text : bool, default True
        n-grams of the prompt and of the text go to the pool too
    pool : NgramPool, optional
        an NgramPool(ngram) that texts may share and which they fill; None: one of its own for each text
    adaptive : bool, default True
        fewer columns and guesses where they do not pay, down to none, by `costs` and by what they gave; False: all of
        them in every forward
    costs : Costs, optional
        of forwards on this machine; None: the model's, as with `Auto`

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> model, text = fd.load(folder), "to be or not to be, to be"
    >>> plain = model.generate(text, max_tokens=24)
    >>> sooner = model.generate(text, max_tokens=24, decoder=fd.Lookahead(adaptive=False))
    >>> sooner.tokens == plain.tokens, sooner.stats.forwards < plain.stats.forwards
    (True, True)
    """

    window: int = 7
    ngram: int = 5
    guesses: int = 7
    init: str = "prompt"
    from_text: bool = True
    pool: NgramPool | None = None
    adaptive: bool = True
    costs: Costs | None = None

    def __post_init__(self) -> None:
        window, ngram = check_integer("window", self.window, 0, 256), check_integer("ngram", self.ngram, 2, 32)
        rows = (window + check_integer("guesses", self.guesses, 0, 64)) * (ngram - 1)
        if rows > MOST_ROWS:
            raise ArgumentError(f"(window + guesses) * (ngram - 1) must be at most {MOST_ROWS}, got {rows}")
        for name in ("from_text", "adaptive"):
            check_flag(name, getattr(self, name))
        check_choice("init", self.init, INITS)
        check_pool(self.pool, self.ngram)
        check_costs(self.costs)

    takes_constraint = True

    def start(self, session: SessionLike, request: Request) -> SpeculativeRun:
        pace = LookaheadPace(self, request) if self.adaptive else None
        most = max((self.window + self.guesses) * (self.ngram - 1), 1)
        return SpeculativeRun(Speculative(_Drafter(self, pace), max_draft=most), session, request, pace)


@dataclass(frozen=True)
class _Drafter:
    settings: Lookahead
    pace: LookaheadPace | None

    def start(self, request: DraftRequest) -> Window:
        return Window(self.settings, self.pace, request)


class Window:
    """The window and the pool of one text."""

    pooled = (LATEST, EARLIER)

    def __init__(self, settings: Lookahead, pace: LookaheadPace | None, request: DraftRequest) -> None:
        self._settings, self._pace, self._request = settings, pace, request
        self._pool = (
            NgramPool(settings.ngram, per_key=max(settings.guesses, 8)) if settings.pool is None else settings.pool
        )
        self._seed, self._length = 0, len(request.prompt)
        self._end = NONE  # the text's last tokens, of which n-grams are not complete
        self._tokens = np.empty((settings.ngram - 1, 0), np.int32)  # of the window, level by level
        self._rounds = np.empty(0, np.int64)  # that each column has been in it
        self._cells = np.empty((1, 0), np.int32)  # guesses of the last draft that are the window's,
        self._draws = NONE  # and what was drawn after its last level
        if settings.from_text:
            self._remember(np.concatenate([request.source, request.prompt]))

    def propose(self, budget: int) -> Draft:
        settings, levels = self._settings, self._settings.ngram - 1
        count, found = min(settings.guesses, budget // levels), np.empty((0, levels), np.int32)
        if count > 0:
            found = continuations(self._pool, self._seed, count, self._request.session.vocab_size)
        most = min(settings.window, budget // levels - len(found))  # where room is short, guesses come first
        columns = most if self._pace is None else self._pace.window(self._length, most)
        self._widen(columns)
        if not columns and not len(found):
            return NO_GUESSES
        layout = lookahead_layout(self._tokens, settings.ngram, found, seed=self._seed)
        self._cells = layout.cells - 1  # the seed is no guess
        if self._pace is not None:
            self._pace.invested = int(layout.cells.max(initial=0))  # the window stands first
        kinds = np.full(len(layout.tokens) - 1, CELL, np.int32)
        kinds[layout.branches[1:] - 1] = EARLIER
        kinds[layout.branches[:1] - 1] = LATEST
        return Draft(layout.tokens[1:], layout.parents[1:] - 1, kinds=kinds)

    def observe(self, chosen: np.ndarray, drawn: np.ndarray) -> None:
        # Where not all of it was checked there is no window: no room for a draft, perhaps, or a constraint has refused some.
        whole = len(chosen) and np.isin(self._cells[-1], chosen).all()
        self._draws = drawn[1 + np.searchsorted(chosen, self._cells[-1])] if whole else NONE

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        if not tokens:
            return
        self._seed = tokens[-1]
        self._length += len(tokens)
        self._advance(len(tokens))
        if self._settings.from_text:
            self._remember(np.array(tokens, np.int32))

    def _advance(self, gained: int) -> None:
        """One level up, and to the left with the text: what was cell (l + 1, i + gained - 1) is cell (l, i)."""
        draws, self._draws = self._draws, NONE
        if not len(draws):  # the window was not in this forward
            self._widen(0)
            return
        ngrams = np.vstack([self._tokens, draws])
        self._rounds += 1
        drawn = self._rounds >= self._settings.ngram - 1  # all but its first token
        if drawn.any():
            self._pool.insert(np.ascontiguousarray(ngrams.T[drawn]))
        self._tokens = np.ascontiguousarray(ngrams[1:, gained - 1 :])
        self._rounds = self._rounds[gained - 1 :]

    def _widen(self, columns: int) -> None:
        """So many columns: those beyond are dropped, those that lack begin with tokens that nothing is known of."""
        levels, have = self._tokens.shape
        if columns == have:
            return
        made = np.empty((levels, 0), np.int32)
        if columns > have:
            count = (columns - have) * levels
            made = initial(self._settings.init, self._seed, count, self._request, self._length).reshape(levels, -1)
        self._tokens = np.ascontiguousarray(np.hstack([self._tokens[:, :columns], made]))
        self._rounds = np.append(self._rounds[:columns], np.zeros(made.shape[1], np.int64))

    def _remember(self, tokens: np.ndarray) -> None:
        """N-grams that the text now has."""
        text = np.concatenate([self._end, tokens])
        self._pool.insert(text)
        self._end = text[max(len(text) - self._settings.ngram + 1, 0) :]


class LookaheadPace(Pace):
    """Beside the guesses that pay, the columns that do: of a few widths the one that gave most tokens a second of late."""

    rests_first = True

    def __init__(self, settings: Lookahead, request: Request) -> None:
        super().__init__(settings.costs or request.costs, PRIORS, live=settings.costs is None)
        self._levels, most = settings.ngram - 1, settings.window
        self._widths = sorted({0, -(-most // 4), -(-most // 2), most})
        # Of each width: tokens and seconds of a round.  Before any was seen: half of what the whole window could give, less of a part.
        self._tokens = [1.0 + self._levels / 2 * (width / max(most, 1)) ** 0.5 for width in self._widths]
        self._spent: list[float] = []
        self._first, self._priced_for = (list(self._tokens), list[float]()), 0  # for so many texts in a forward
        self._arm = self._ran = 0  # the width that is tried, and that of the last round
        self._wait = 0  # rounds until widths are weighed again

    def window(self, context: int, most: int) -> int:
        """How many columns to draw, at most so many."""
        if self._priced_for != self._together:
            rows = [(width + bool(width)) * self._levels for width in self._widths]  # with one n-gram to check
            before, now = self._first[1], self.seconds(np.array(rows), context)
            self._spent = [
                spent * new / old for spent, new, old in zip(self._spent or now, now, before or now, strict=True)
            ]
            self._first, self._priced_for, self._wait = (self._first[0], now), self._together, 0
        if self._wait == 0:
            rates = [tokens / spent for tokens, spent in zip(self._tokens, self._spent, strict=True)]
            self._arm = rates.index(max(rates))
            self._wait = AWAKE + 2 * self._levels * (
                self._arm > 0
            )  # a column has to be drawn through before it gives anything
        self._wait -= 1
        width = min(self._widths[self._arm], most)
        if width:
            plain, ours = self.seconds(np.array([0, width * self._levels]), context)
            width = width if ours - plain <= self.room(plain) else 0
        if not width and not self._guess_pays(context):
            self._resting = ASLEEP  # no longer: a text that copies may begin at any time
        self._ran = self._widths.index(width) if width in self._widths else -1
        self.invested = 0
        return width

    def _guess_pays(self, context: int) -> bool:
        """Whether the first token of the likeliest n-gram is worth its row."""
        plain, ours = self.seconds(np.array([0, 1]), context)
        return ours < plain * (1 + self.chances([LATEST], [-1])[0])

    def learn(self, verdicts: np.ndarray) -> None:
        super().learn(verdicts)
        now = 1.0 + int((verdicts > 0).sum()), self._seconds[len(verdicts)]
        for known, first, seen in zip((self._tokens, self._spent), self._first, now, strict=True):
            for arm in range(len(first)):
                left, towards = (MEMORY, seen) if arm == self._ran else (FADING, first[arm])
                known[arm] = left * known[arm] + (1 - left) * towards
