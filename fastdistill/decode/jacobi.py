"""Jacobi decoding: guesses at the next tokens, drawn anew in every forward from the guesses before them, until they stay.

A text is the solution of a triangular system: token i is what the model draws after the tokens before it, and the draw
is a function of those and the position. One forward over a whole block of guesses draws every token of the block at
once (Jacobi's iteration); after n iterations the first n are right, whatever was guessed, and where guesses were right,
more. Seen from the other side it is speculative decoding whose draft is the last forward's own draws: so rounds,
verification and the cache are those of `SpeculativeRun`, and the text is that of plain decoding at any temperature.
Sources: Song et al. 2021; Santilli et al. 2023; CLLM (Kou et al. 2024); Jacobi Forcing (Hu et al. 2025): blocks and
recycling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastdistill.arguments import check_choice, check_flag, check_integer, check_number
from fastdistill.decode.blocks import Blocks
from fastdistill.decode.chance import INITIAL, uniforms
from fastdistill.decode.costs import Costs, check_costs
from fastdistill.decode.drafters.draft import NO_GUESSES, Draft, DraftRequest, merged
from fastdistill.decode.pace import Pace
from fastdistill.decode.request import Request, Round
from fastdistill.decode.speculative import Speculative, SpeculativeRun
from fastdistill.errors import ArgumentError
from fastdistill.kernels.fixed_point.jacobi_step import jacobi_step
from fastdistill.kernels.fixed_point.ngram_pool import NgramPool
from fastdistill.kernels.verify.verify_tree import Verified
from fastdistill.runtime.forward import SessionLike

INITS = ("prompt", "random", "copy")
MOST_GUESSES = 512
NGRAM = 5  # of the pool: one token to look up by, and four that followed it

# A guess's kind is how often it has been drawn since it was made up, 0 to REFINED - 1, where it stays; those from the pool are RECYCLED.
REFINED = 4
RECYCLED = REFINED
PRIORS = ((0.1, 2.0), (1.0, 0.5), (1.0, 0.4), (1.0, 0.3), (0.5, 1.5))
LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # guesses of a window: lengths that are compared by their rates
TRIES = 2  # a round spends at most this part, one half, of what may be lost: the first round's guesses are wrong in any model
AWAKE = 3  # rounds until lengths are compared again, after one that pays was found
ASLEEP = 8  # rounds of plain decoding until then, where none paid; doubled each time


@dataclass(frozen=True)
class Jacobi:
    """Guesses that every forward draws anew, no draft model: the text of plain decoding, at any temperature.

    Parameters
    ----------
    block : int, default 16
        tokens of a block
    init : str, default "prompt"
        a guess that nothing is known of: "prompt", a token of the prompt by chance; "random", any token; "copy", the
        token before it
    max_blocks : int, default 1
        most blocks at once: more than one iterates on text whose beginning is not certain yet
    spawn : float, default 0.85
        part of the newest block that has to settle before the next one begins; 0 at once, so that Jacobi(block=1,
        max_blocks=n, spawn=0) is a window of n guesses that slides along the text
    recycle : bool, default True
        guesses that were refused (rejected) are kept as n-grams, and guessed again where their first token comes
    candidates : int, default 2
        how many of them at once
    pool : NgramPool, optional
        an NgramPool to keep them in, which texts may share and which they fill; None: one of its own for each text
    adaptive : bool, default True
        check fewer guesses where they do not pay, down to none, by `costs` and by how often they were right; False: all
        of them in every forward
    costs : Costs, optional
        of forwards on this machine; None: the model's, as with `Auto`
    trace : bool, default False
        keep the guesses of every round (`Round.guesses`), for `show.trajectory`

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> model, text = fd.load(folder), "to be or not to be, to be"
    >>> plain = model.generate(text, max_tokens=24)
    >>> sooner = model.generate(text, max_tokens=24, decoder=fd.Jacobi(adaptive=False))
    >>> sooner.tokens == plain.tokens, sooner.stats.forwards < plain.stats.forwards
    (True, True)
    """

    block: int = 16
    init: str = "prompt"
    max_blocks: int = 1
    spawn: float = 0.85
    recycle: bool = True
    candidates: int = 2
    pool: NgramPool | None = None
    adaptive: bool = True
    costs: Costs | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        block = check_integer("block", self.block, 1, MOST_GUESSES)
        guesses = block * check_integer("max_blocks", self.max_blocks, 1, MOST_GUESSES)
        if guesses > MOST_GUESSES:
            raise ArgumentError(f"block * max_blocks must be at most {MOST_GUESSES}, got {guesses}")
        for name in ("recycle", "adaptive", "trace"):
            check_flag(name, getattr(self, name))
        check_number("spawn", self.spawn, 0, 1)
        check_integer("candidates", self.candidates, 1, 16)
        check_choice("init", self.init, INITS)
        check_pool(self.pool, None)
        check_costs(self.costs)

    takes_constraint = True

    def start(self, session: SessionLike, request: Request) -> JacobiRun:
        return JacobiRun(self, session, request)


def check_pool(pool: Any, ngram: int | None) -> None:
    """Of any n-grams looked up by one token; of so many tokens, where that is given."""
    if not isinstance(pool, NgramPool | None):
        raise ArgumentError(f"pool must be an NgramPool, got {type(pool).__name__}")
    if pool is not None and (pool.key != 1 or ngram not in (None, pool.ngram)):
        wanted = "key=1" if ngram is None else f"key=1 and ngram={ngram}"
        raise ArgumentError(f"pool must have {wanted}, got key={pool.key} and ngram={pool.ngram}")


class JacobiRun(SpeculativeRun):
    """Rounds whose draft is the iterate, and what the pool says beside it; they keep the iterate where a trace is wanted."""

    def __init__(self, settings: Jacobi, session: SessionLike, request: Request) -> None:
        pace = None
        if settings.adaptive:
            pace = JacobiPace(settings.costs or request.costs, PRIORS, live=settings.costs is None)
        ngram = NGRAM if settings.pool is None else settings.pool.ngram
        most = settings.block * settings.max_blocks + settings.recycle * settings.candidates * (ngram - 1)
        super().__init__(Speculative(_Drafter(settings, pace), max_draft=most), session, request, pace)
        self._trace = settings.trace
        if settings.trace:
            self._rest_round = Round(0, 0, guesses=())

    def _round(self, verified: Verified, count: int) -> Round:
        round, iterate = super()._round(verified, count), self._drafts
        assert isinstance(iterate, Iterate)
        return replace(round, guesses=tuple(iterate.guesses.tolist())) if self._trace else round


@dataclass(frozen=True)
class _Drafter:
    settings: Jacobi
    pace: JacobiPace | None

    def start(self, request: DraftRequest) -> Iterate:
        return Iterate(self.settings, self.pace, request)


class Iterate:
    """Guesses at the next tokens, each with how often it has been drawn since it was made up; and the blocks that they fill."""

    pooled = (RECYCLED,)

    def __init__(self, settings: Jacobi, pace: JacobiPace | None, request: DraftRequest) -> None:
        self._settings, self._pace, self._request = settings, pace, request
        self._blocks = Blocks.begin(settings.block, settings.max_blocks, settings.spawn)
        self._pool = None
        if settings.recycle:
            self._pool = NgramPool(NGRAM) if settings.pool is None else settings.pool
        self._seed, self._length, self._begun = 0, len(request.prompt), False
        self.guesses = self._drawn_times = np.empty(0, np.int32)
        self._window = 0  # leading guesses in the draft,
        self._checked = 0  # those of them that were checked,
        self._draws = np.empty(0, np.int32)  # and what was drawn after the seed and each of these

    def propose(self, budget: int) -> Draft:
        recycled = np.empty((0, 0), np.int32)
        if self._pool is not None:
            vocab, count = self._request.session.vocab_size, self._settings.candidates
            recycled = continuations(self._pool, self._seed, count, vocab)
        # Where room is short, up to half of it is theirs.
        window = min(self._blocks.guesses, budget - min(recycled.size, (budget + 1) // 2))
        if self._pace is not None:
            window = self._pace.window(self._length, window)
        self._window = window
        if window > len(self.guesses):
            self._make_up(window - len(self.guesses))
        if not window and not len(recycled):
            return NO_GUESSES
        paths, kinds = [self.guesses[:window]], [np.minimum(self._drawn_times[:window], REFINED - 1)]
        for path in recycled:
            count = min(len(path), budget - sum(map(len, paths)))
            paths.append(path[:count])
            kinds.append(np.full(count, RECYCLED, np.int32))
        return merged(paths, kinds)

    def observe(self, chosen: np.ndarray, drawn: np.ndarray) -> None:
        self._checked = int((chosen < self._window).sum())  # the window stands first in the draft
        self._draws = drawn[: self._checked + 1]

    def accept(self, tokens: Sequence[int], path: np.ndarray, taps: Mapping[str, np.ndarray]) -> None:
        if not tokens:
            return
        seed, self._seed = self._seed, tokens[-1]
        self._length += len(tokens)
        if self._begun:
            settled = self._iterate(seed, len(tokens)) if self._checked else 0
            self._blocks = self._blocks.advance(len(tokens), settled)
            most = self._blocks.guesses if self._checked else 0  # guesses that are not drawn anew do not become better
            self.guesses, self._drawn_times = self.guesses[:most], self._drawn_times[:most]
        self._begun, self._checked = True, 0

    def _iterate(self, seed: int, gained: int) -> int:
        """The next iterate, from the seed that now is; what fell out of the old one goes to the pool.

        Returns
        -------
        int
            how many leading tokens of the newest block stayed what they were
        """
        old, checked = self.guesses, self._checked
        step = jacobi_step(np.concatenate([np.array([seed], np.int32), old[:checked]]), self._draws)
        # What follows seed and guesses: drawn where the one before was checked, else as it was.
        self.guesses = np.concatenate([self._draws, old[checked + 1 :]])[gained:]
        times = np.append(self._drawn_times, 0)[: checked + 1] + 1
        self._drawn_times = np.concatenate([times, self._drawn_times[checked + 1 :]])[gained:]
        if self._pool is not None and not step.converged:
            self._pool.insert(old[step.prefix - 2 : checked])  # from the first wrong guess on
            self._pool.insert(np.concatenate([np.array([self._seed], np.int32), self._draws[gained:]]))
        newest = step.stationary[1 + self._blocks.guesses - self._blocks.left[-1] :]
        return len(newest) if newest.all() else int(newest.argmin())

    def _make_up(self, count: int) -> None:
        last = int(self.guesses[-1]) if len(self.guesses) else self._seed
        made = initial(self._settings.init, last, count, self._request, self._length)
        self.guesses = np.concatenate([self.guesses, made])
        self._drawn_times = np.concatenate([self._drawn_times, np.zeros(count, np.int32)])


def continuations(pool: NgramPool, token: int, count: int, vocab_size: int) -> np.ndarray:
    """What a pool says may follow a token, int32 (found, ngram - 1): of tokens that the model has, whoever filled it."""
    found = pool.lookup(token, count)
    known = (found >= 0) & (found < vocab_size)
    return found if known.all() else found[known.all(axis=1)]


def initial(init: str, last: int, count: int, request: DraftRequest, position: int) -> np.ndarray:
    """Guesses that nothing is known of, int32 (count,), after token `last` of a text of so many tokens."""
    if init == "copy":
        return np.full(count, last, np.int32)
    chances = uniforms(request.sampler, position, 0, count, INITIAL)
    if init == "random":
        return (chances * request.session.vocab_size).astype(np.int32)
    text = np.concatenate([request.source, request.prompt])
    return text[(chances * len(text)).astype(np.int64)]


class JacobiPace(Pace):
    """Beside the guesses that pay at once, those that pay later: a guess has to be drawn a few times before it is right.

    In a window of n guesses of which t leave a round, the one in place d has been drawn 1 + (n - d) / t times on its
    way there. How often guesses that were drawn so many times are right is counted, as of any kind; so every length of
    the window has a rate, tokens a second.
    """

    credit, share, memory = 1.0, 0.01, 0.95  # whether a model's iterates converge shows early in a text, or not at all

    rests_first = True

    _length, _wait, _pause = 0, 0, ASLEEP  # rounds until lengths are weighed again; those rested where none pays

    def shared_by(self, texts: int) -> None:
        if texts != self._together:
            self._wait, self._pause = 0, ASLEEP  # weighed anew
        super().shared_by(texts)

    def window(self, context: int, most: int) -> int:
        """How many guesses to draw anew, at most so many: the length with the best rate, if it is within what may be lost."""
        if self._wait == 0:
            self._length = self._best(context)
            if self._length:
                self._wait, self._pause = AWAKE, ASLEEP
            else:
                self._wait = 1
                self._resting = self._pause = 2 * self._pause
        self._wait -= 1
        length = min(self._length, most)
        if length:
            seconds = self.seconds(np.arange(length + 1), context)
            room = self.room(seconds[0]) / TRIES
            while seconds[length] - seconds[0] > room:
                length -= 1
        self.invested = length
        return length

    def _best(self, context: int) -> int:
        seconds = self.seconds(np.array(LENGTHS), context)
        best, rate = 0, 1 / seconds[0]
        for length, cost in zip(LENGTHS, seconds, strict=True):
            if 1 + length > rate * cost and (expected := self._expected(length)) > rate * cost:
                best, rate = length, expected / cost
        return best

    def _expected(self, length: int) -> float:
        """Tokens a round with a window of this length, once it has been at work for a while."""
        tokens = 1.0
        for _ in range(2):  # what leaves a round is what the chances make of it: an iteration again
            kinds = [min(1 + int((length - place) / tokens), REFINED - 1) for place in range(1, length + 1)]
            tokens = 1.0 + sum(self.chances(kinds, range(-1, length - 1)))
        return tokens
