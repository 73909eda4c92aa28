"""What writing a text gives: the text, its tokens, what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastdistill.decode.request import Round
from fastdistill.errors import all_given
from fastdistill.messages import short
from fastdistill.runtime.read import Rows

if TYPE_CHECKING:
    from fastdistill.decode.unmask.trace import Trace


@dataclass
class Statistics:
    """What a text cost. Where several were written together, seconds are those of the whole batch while it was in it.

    Attributes
    ----------
    prompt_tokens : int
        tokens of the prompt
    reused_tokens : int
        of them: found in the session's cache
    new_tokens : int
        tokens of the answer, one that ends the text included
    forwards : int
        after the prompt's
    committed : int
        positions that a diffusion decoder filled, those behind the text's end included
    drafted : int
        guesses of a decoder that makes some
    accepted : int
        of them: those that stayed
    recycled : int
        of the accepted: those from a pool of n-grams
    prefill_seconds : float
        of the forwards that read the prompt
    decode_seconds : float
        of those after them
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    forwards: int = 0
    committed: int = 0
    drafted: int = 0
    accepted: int = 0
    recycled: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def tokens_per_forward(self) -> float:
        """Tokens after the first one, which the prompt's own forward gives, per forward; of unmasking: positions filled."""
        return (self.committed or self.new_tokens - 1) / self.forwards if self.forwards else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of decoding; the first one, where the prompt's own forward gives it, left out."""
        tokens = self.new_tokens - (not self.committed)
        return tokens / self.decode_seconds if self.decode_seconds > 0 and self.forwards else 0.0


@dataclass(frozen=True)
class TokenLogProbs:
    """Log probabilities (natural) under the model itself, before any processor: the token's, and the likeliest tokens'.

    Attributes
    ----------
    token : int
        the one that was written
    log_prob : float
        its own, in nats
    top : tuple[tuple[int, float], ...]
        (token, log probability) of the likeliest ones, the best first; as many as were asked for
    """

    token: int
    log_prob: float
    top: tuple[tuple[int, float], ...]


@dataclass(repr=False)
class Generation:
    """A text and how it came about.

    Attributes
    ----------
    tokens : list[int]
        every token emitted, the end-of-text or the one that completes a stop string included
    text : str
        without special tokens and without the stop string; empty where no tokenizer is there to read tokens
    finish_reason : str
        "stop" (end of text or a stop string), "length" (max_tokens), "capacity", "cancelled", or "error"
    stats : Statistics
        what it cost: see `Statistics`
    error : Exception | None
        what ended the text, where it failed: one of several texts, which fail alone
    logprobs : list[TokenLogProbs] | None
        one entry a token, where asked for
    rounds : list[Round]
        of a decoder that guesses: what became of its guesses, forward by forward
    trace : Trace | None
        of unmasking, where asked for: which positions each forward filled
    score : float | None
        of a beam search: the sum of its log probabilities / its tokens ** length_penalty
    runners_up : list[Generation]
        of a beam search: what else it ended with, the best first, each with its score; `stats` are those of the search
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    error: Exception | None = None
    stats: Statistics = field(default_factory=Statistics)
    logprobs: list[TokenLogProbs] | None = None
    rounds: list[Round] = field(default_factory=list)
    trace: Trace | None = None
    score: float | None = None
    runners_up: list[Generation] = field(default_factory=list)

    def __repr__(self) -> str:
        """<Generation 'Paris is the capital of...', 128 tokens, length, 231 tokens/s>"""
        shown = [short(self.text), f"{len(self.tokens):,} token{'s' * (len(self.tokens) != 1)}"]
        shown += [self.finish_reason or "unfinished"]
        if self.stats.tokens_per_second:
            shown.append(f"{self.stats.tokens_per_second:.0f} tokens/s")
        return f"<Generation {', '.join(shown)}>"

    @property
    def tokens_of_rounds(self) -> dict[int, int]:
        """How many rounds gave one token, two, ...: a histogram, {tokens: rounds}."""
        return dict(sorted(Counter(round.tokens for round in self.rounds).items()))


class Piece(str):
    """A part of a text that has become certain: a str, which may be empty, with what it came of.

    Attributes
    ----------
    tokens : Sequence[int]
        since the piece before
    logprobs : Sequence[TokenLogProbs] | None
        one entry a token, where asked for
    finish_reason : str | None
        of the last piece of a text: as of its Generation; else None
    """

    tokens: Sequence[int]
    logprobs: Sequence[TokenLogProbs] | None
    finish_reason: str | None

    def __new__(
        cls,
        text: str,
        tokens: Sequence[int] = (),
        logprobs: Sequence[TokenLogProbs] | None = None,
        finish_reason: str | None = None,
    ) -> Piece:
        piece = super().__new__(cls, text)
        piece.tokens, piece.logprobs, piece.finish_reason = tokens, logprobs, finish_reason
        return piece


def unless_failed(results: list[Generation]) -> list[Generation]:
    """The results of texts that have not failed; raises as `all_given`."""
    try:
        return all_given(results, {n: result.error for n, result in enumerate(results) if result.error is not None})
    finally:
        del results  # an error holds this frame


def log_probs_of(token: int, rows: Rows, row: int, count: int) -> TokenLogProbs:
    """Of a token drawn from a row: its log probability, and those of so many likeliest tokens."""
    assert rows.logits is not None  # the request asked for them
    logits, log_sum = rows.logits[row], rows.statistics.log_sum_exp[row]
    count = min(count, len(logits))
    candidates = np.flatnonzero(
        logits >= np.partition(logits, -count)[-count]
    )  # more than `count` where some are equal
    best = candidates[np.argsort(-logits[candidates], kind="stable")][:count]
    return TokenLogProbs(
        token, float(logits[token] - log_sum), tuple((int(i), float(logits[i] - log_sum)) for i in best)
    )
