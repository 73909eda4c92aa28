"""What every decoder is asked for, and what it has to offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fastdistill.cached import cached_property
from fastdistill.decode.constraint import Constraint, Guided
from fastdistill.decode.costs import UNKNOWN, Costs
from fastdistill.errors import ArgumentError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows

if TYPE_CHECKING:
    from fastdistill.decode.generation import TokenLogProbs
    from fastdistill.decode.unmask.trace import Trace


class Speller(Protocol):
    """Makes text of tokens, as `text.TextStream` does.

    Attributes
    ----------
    stopped : bool
        a stop string has come
    """

    stopped: bool

    def push(self, token: int) -> str: ...
    def finish(self) -> str: ...
    def fresh(self) -> Speller: ...
    def fork(self) -> Speller: ...


@dataclass(frozen=True)
class Request:
    """One text to write, in tokens; the same for every decoder.

    Parameters
    ----------
    prompt : int32 (n,)
        n >= 1
    cached : int
        how many of them the session has committed already, < n
    sampler : Sampler
        how tokens are drawn; its prompt_length becomes the prompt's
    allowed : uint32 (words,), optional
        tokens that may be drawn, bit t % 32 of word t // 32 for token t; None: all
    allowed_early : uint32 (words,), optional
        the same for the first min_tokens tokens, without those that end the text
    min_tokens : int, default 0
        tokens before the text may end
    allowed_first, allowed_last : uint32 (words,), optional
        the same for the first token, and for token number max_tokens, alone; None: those of any
    banned : int32 (k,), optional
        tokens whose logits are -inf
    within : bool, default False
        write nothing behind the prompt: fill the masks that it holds, max_tokens of them
    max_tokens : int, optional
        most tokens to write
    end_tokens : frozenset[int], optional
        those that end the text
    logprobs : int, default 0
        give the log probability of each token, and of so many likeliest ones
    stops : Speller, optional
        finds the stop strings that end the text as its tokens come, for a decoder that writes several: each has a fork of it;
        None: there are none
    constraint : Constraint, optional
        what the text may be; decoders that take one follow it by `guided`, and give its masks to `read`
    measured_costs : Callable[[], Costs], optional
        gives the costs of forwards of this session's model, which may have to be measured first; None: nobody can
    """

    prompt: np.ndarray
    cached: int
    sampler: Sampler
    allowed: np.ndarray | None = None
    allowed_early: np.ndarray | None = None
    min_tokens: int = 0
    max_tokens: int = 1 << 30
    end_tokens: frozenset[int] = frozenset()
    logprobs: int = 0
    measured_costs: Callable[[], Costs] | None = None
    allowed_first: np.ndarray | None = None
    allowed_last: np.ndarray | None = None
    banned: np.ndarray | None = None
    within: bool = False
    stops: Speller | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler", replace(self.sampler, prompt_length=len(self.prompt)))

    @property
    def costs(self) -> Costs:
        """What forwards cost: measured, where somebody can; else a row is taken to cost an eighth of a forward."""
        return UNKNOWN if self.measured_costs is None or self.max_tokens < 2 else self.measured_costs()

    def guided(self, vocab_size: int) -> Guided | None:
        """Follows the constraint from its start; None where there is none."""
        return None if self.constraint is None else Guided(self.constraint, self.end_tokens, vocab_size)

    def read(self, numbers: Sequence[int] | np.ndarray, within: np.ndarray | None = None) -> Read:
        """What to read for rows that draw the tokens number numbers[0], numbers[1], ... of the text.

        Parameters
        ----------
        numbers : Sequence[int] | np.ndarray
            n of them
        within : uint32 (n, words), optional
            of the tokens that each may draw, those that a constraint allows
        """
        masks = self.masks(numbers, within)
        return self._read if masks is None else replace(self._read, allowed=masks)

    @cached_property
    def _read(self) -> Read:
        return Read(sampler=self.sampler, logits=self.logprobs > 0, banned=self.banned)

    @property
    def free_tokens(self) -> int:
        """How many tokens from the beginning, the first one left out, are drawn of all tokens and from nothing but what the head gives."""
        if self.allowed is not None or self.allowed_early is not None or self.logprobs or self.constraint is not None:
            return 0
        return self.max_tokens - (self.allowed_last is not None)

    def masks(self, numbers: Sequence[int] | np.ndarray, within: np.ndarray | None = None) -> np.ndarray | None:
        """Which tokens these rows may draw, uint32 (rows, words); None: all.

        Raises
        ------
        ArgumentError
            where a constraint allows none of those that options do
        """
        masks = self._masks(numbers)
        if within is None or masks is None:
            return masks if within is None else within
        both = masks & within
        if not both.any(axis=1).all():
            number = int(numbers[int(both.any(axis=1).argmin())])
            raise ArgumentError(
                f"the constraint lets none of the tokens follow that allowed and min_tokens={self.min_tokens} leave, at token {number} of the text"
            )
        return both

    def _masks(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray | None:
        plain = self.allowed is None and self.allowed_early is None
        if plain and self.allowed_first is None and self.allowed_last is None:
            return None
        masks = [self._mask(number) for number in numbers]
        words = next((mask for mask in masks if mask is not None), np.empty(0, np.uint32)).size
        if words == 0:
            return None
        every = np.full(words, 0xFFFFFFFF, np.uint32)
        return np.stack([every if mask is None else mask for mask in masks])

    def _mask(self, number: int) -> np.ndarray | None:
        """Which tokens may be token `number` of the text, uint32 (words,); None: all."""
        given = self.given(number)
        if given is not None:
            return given
        return self.allowed_early if number < self.min_tokens else self.allowed

    def given(self, number: int) -> np.ndarray | None:
        """Of the first or the last token, what alone it may be, uint32 (words,); None: that is open."""
        if number == 0 and self.allowed_first is not None:
            return self.allowed_first
        return self.allowed_last if number == self.max_tokens - 1 else None


@dataclass(frozen=True)
class Round:
    """One forward of a decoder that guesses.

    Attributes
    ----------
    drafted : int
        guesses
    accepted : int
        of them: those that the target agrees with
    refused : tuple[int, ...]
        the guesses that would have come next: rejected
    recycled : int
        of the accepted: guesses that came from a pool of n-grams
    guesses : tuple[int, ...] | None
        of a decoder that keeps a trace: at every next token, checked or not; None: it keeps none
    ended : bool
        the text ends with the last of the accepted ones
    """

    drafted: int
    accepted: int
    refused: tuple[int, ...] = ()
    recycled: int = 0
    guesses: tuple[int, ...] | None = None
    ended: bool = False

    @property
    def tokens(self) -> int:
        """What the forward gave: the accepted guesses and the token drawn after them, where the text goes on so far."""
        return self.accepted + (not self.ended)


class Hypothesis(NamedTuple):
    """A text that a search has ended with.

    Attributes
    ----------
    tokens : list[int]
        that it has, the one that ends it included
    score : float
        by which it is compared, the more the better
    logprobs : list[TokenLogProbs]
        one entry a token, where asked for
    """

    tokens: list[int]
    score: float
    logprobs: list[TokenLogProbs]


class Run:
    """One text being written. The engine asks for a forward, runs it, and hands the rows back.

    Attributes
    ----------
    together : int
        told before `forward`: how many texts share the next forward
    room : int
        told before `forward`: how many rows of a prompt it has room for
    seconds : float
        told before `take`: what `forward` and the forward itself took, of all texts that shared it
    passes : int
        asked for after `take`: how many forwards the last one stood for
    unread : int
        tokens of the prompt that are still to be read; 0: the next forward goes on with the text
    decoding : bool | None
        whether the last forward was more than the prompt's; None: if the text had tokens before
    rounds : Sequence[Round]
        of one that guesses: one a forward after the prompt
    committed : int
        of one that fills places in any order: how many it has filled
    needs_place : bool
        a token takes a place before it is certain
    said : Mapping[int, TokenLogProbs] | None
        of one that fills places in any order, where log probabilities are asked for: of each token, by its number, what the
        forward that filled it has said; None: they are of the rows that `take` gives beside the tokens
    trace : Trace | None
        of unmasking, where it is wanted
    hypotheses : Sequence[Hypothesis]
        of one that searches, when it is over: all that it has ended with, the best first; `take` has given that one's tokens
    """

    together: int = 1
    room: int = 1 << 16
    seconds: float = 0.0
    passes: int = 1
    unread: int = 0
    rounds: Sequence[Round] = ()
    needs_place: bool = False
    said: Mapping[int, TokenLogProbs] | None = None
    trace: Trace | None = None
    hypotheses: Sequence[Hypothesis] = ()

    @property
    def decoding(self) -> bool | None:
        return None

    @property
    def committed(self) -> int:
        return 0

    def forward(self) -> Forward | Sequence[tuple[SessionLike, Forward]]:
        """What the session is to run next; or, of a run with sessions of its own, what each of these is."""
        raise NotImplementedError

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        """New tokens, in order, each with the row that it was drawn from; none while the prompt is being read.

        One that has run several sessions takes as many arguments: what each gave.
        """
        raise NotImplementedError


class Decoder(Protocol):
    """Frozen settings; `start` begins one text in a session whose cache holds request.prompt[: request.cached].

    One with `taps` needs a session that has these, as `Model.generate` makes it.
    """

    def start(self, session: SessionLike, request: Request) -> Run: ...
