"""The loop that every decoder runs in: forwards, truncation, stop strings, statistics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdistill.arguments import check_has, check_instance, check_integer, check_integers
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.check_decoder import check_decoder
from fastdistill.decode.costs import Costs, check_costs
from fastdistill.decode.request import Decoder, Request, Round
from fastdistill.decode.unmask.decoder import Unmask
from fastdistill.errors import ArgumentError, BusyError, CapacityError, all_given, attempt
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.messages import short
from fastdistill.runtime.forward_many import forward_many
from fastdistill.runtime.read import Rows
from fastdistill.runtime.session import Session

if TYPE_CHECKING:
    from fastdistill.decode.unmask.trace import Trace


@dataclass
class Statistics:
    """What a text cost.  Where several were written together, seconds are those of the whole batch while it was in it.

    prompt_tokens    tokens of the prompt
    reused_tokens    of them: found in the session's cache
    new_tokens       tokens of the answer, one that ends the text included
    forwards         after the prompt's
    committed        positions that a diffusion decoder filled, those behind the text's end included
    drafted          guesses of a decoder that makes some
    accepted         of them: those that stayed
    recycled         of the accepted: those from a pool of n-grams
    prefill_seconds  of the forwards that read the prompt
    decode_seconds   of those after them
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

    token     the one that was written
    log_prob  its own, in nats
    top       (token, log probability) of the likeliest ones, the best first; as many as were asked for
    """

    token: int
    log_prob: float
    top: tuple[tuple[int, float], ...]


@dataclass(repr=False)
class Generation:
    """A text and how it came about.

    tokens         every token emitted, the end-of-text or the one that completes a stop string included
    text           without special tokens and without the stop string
    finish_reason  "stop" (end of text or a stop string), "length" (max_tokens), "capacity", or "error"
    stats          what it cost: see `Statistics`
    error          what ended the text, where it failed: one of several texts, which fail alone
    logprobs       one entry a token, where asked for
    rounds         of a decoder that guesses: what became of its guesses, forward by forward
    trace          of unmasking, where asked for: which positions each forward filled
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    error: Exception | None = None
    stats: Statistics = field(default_factory=Statistics)
    logprobs: list[TokenLogProbs] | None = None
    rounds: list[Round] = field(default_factory=list)
    trace: Trace | None = None

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


class Text:
    """One text in the loop: takes a decoder's tokens and cuts them where the text ends."""

    def __init__(self, session: Any, request: Request, decoder: Decoder, stream: Any | None) -> None:
        self.session, self.request = session, request
        session.writer = self  # a second text takes the session over
        self.run = decoder.start(session, request)
        self.stream = stream  # text.TextStream, or None when only tokens are wanted
        self.result = Generation(logprobs=[] if request.logprobs else None)
        self.result.stats.prompt_tokens = len(request.prompt)
        self.result.stats.reused_tokens = session.length  # a decoder may have forgotten some
        self.result.trace = getattr(self.run, "trace", None)
        if request.max_tokens == 0:
            self.result.finish_reason = "length"

    @property
    def finished(self) -> bool:
        return bool(self.result.finish_reason)

    def ask(self, together: int) -> Mapping[str, Any]:
        """What to run next, in a forward that so many texts share."""
        if self.session.writer is not self:
            raise BusyError("another text has been started in this session; the first one cannot go on")
        if hasattr(self.run, "together"):
            self.run.together = together
        return self.run.forward()

    def answer(self, rows: Rows | Exception, seconds: float) -> str:
        """Account for one forward, or for what went wrong in it; the text that has become certain."""
        piece = rows if isinstance(rows, Exception) else attempt(self.take, rows, seconds)
        return self.fail(piece) if isinstance(piece, Exception) else piece

    def fail(self, error: Exception) -> str:
        """End with an error: what is certain stays, in the session too; the last of the text."""
        self.result.finish_reason, self.result.error = "error", error
        piece = "" if self.stream is None else attempt(self.stream.finish)
        if self.session.writer is self:
            attempt(self._keep_what_is_sure)
        if isinstance(piece, Exception):
            return ""
        self.result.text += piece
        return piece

    def _keep_what_is_sure(self) -> None:
        text = np.concatenate([self.request.prompt, np.array(self.result.tokens, np.int32)])
        self.session.truncate(self.session.common_prefix(text))

    def take(self, rows: Rows, seconds: float) -> str:
        """Account for one forward; the text that has become certain."""
        stats, result = self.result.stats, self.result
        if hasattr(self.run, "seconds"):
            self.run.seconds = seconds
        decoding = getattr(self.run, "decoding", bool(result.tokens))
        started = time.perf_counter()
        taken = self.run.take(rows)
        seconds += time.perf_counter() - started
        stats.committed = getattr(self.run, "committed", 0)
        if decoding:
            stats.forwards += 1
            stats.decode_seconds += seconds
        else:
            stats.prefill_seconds += seconds
        piece = ""
        before = len(result.tokens)
        for token, row in taken:
            result.tokens.append(token)
            stats.new_tokens += 1
            if result.logprobs is not None:
                result.logprobs.append(_log_probs(token, rows, row, self.request.logprobs))
            if self.stream is not None:
                piece += self.stream.push(token)
            result.finish_reason = self._reason(token)
            if result.finish_reason:
                break  # what a decoder accepted beyond the end is not part of the text
        for round in getattr(self.run, "rounds", ())[len(result.rounds) :]:
            kept = len(result.tokens) - before
            if kept <= round.accepted:  # the text has ended within them
                recycled = max(round.recycled - (round.accepted - kept), 0)  # these come last
                round = replace(round, accepted=kept, refused=(), recycled=recycled, ended=True)
            result.rounds.append(round)
            stats.drafted, stats.accepted = stats.drafted + round.drafted, stats.accepted + round.accepted
            stats.recycled += round.recycled
        if result.finish_reason:
            self._end()
            if self.stream is not None:
                piece += self.stream.finish()
                if self.stream.stopped:  # by what only the end has made certain
                    result.finish_reason = "stop"
        result.text += piece
        return piece

    def _end(self) -> None:
        """Leave the session as plain decoding would: the last token of the text has not been read."""
        length = len(self.request.prompt) + len(self.result.tokens) - 1
        if self.session.length > length:
            self.session.truncate(length)

    def _reason(self, token: int) -> str:
        if token in self.request.end_tokens or (self.stream is not None and self.stream.stopped):
            return "stop"
        if len(self.result.tokens) >= self.request.max_tokens:
            return "length"
        # The last token needs no place until another one is to follow it, unless that one needs its own before it is there.
        places = len(self.request.prompt) + len(self.result.tokens) + getattr(self.run, "needs_place", False)
        return "capacity" if places > self.session.capacity else ""


def write(texts: Sequence[Text]) -> Iterator[tuple[int, str]]:
    """Run the texts to their ends, all in the same passes; yields (number, piece of text) as pieces become certain.

    A text that fails ends with its error (`Generation.error`), and the others go on as if it had ended: bit for bit the same.
    """
    active = [number for number, text in enumerate(texts) if not text.finished]
    while active:
        started = time.perf_counter()
        asked = [attempt(texts[number].ask, len(active)) for number in active]
        results = _forwards([texts[number].session for number in active], asked)
        seconds = time.perf_counter() - started
        for number, result in zip(active, results, strict=True):
            piece = texts[number].answer(result, seconds)
            if piece:
                yield number, piece
        active = [number for number in active if not texts[number].finished]


def _forwards(sessions: Sequence[Any], asked: Sequence[Mapping[str, Any] | Exception]) -> list[Rows | Exception]:
    """What each session gives, or the error that it ends in; an error in the place of arguments stays what it is."""
    requests = [
        (session, what) for session, what in zip(sessions, asked, strict=True) if not isinstance(what, Exception)
    ]
    if all(isinstance(session, Session) for session in sessions):
        given = iter(forward_many(requests, return_errors=True))
    else:
        given = iter([attempt(_forward, *request) for request in requests])
    return [what if isinstance(what, Exception) else next(given) for what in asked]


def _forward(session: Any, arguments: Mapping[str, Any]) -> Rows:
    return session.forward(**arguments)


def written(begin: Sequence[Callable[[], Text]], together: int) -> list[Generation]:
    """Texts in the same passes, so many at a time, each begun when its turn comes; an empty result for one that cannot begin."""
    results: list[Generation] = []
    for start in range(0, len(begin), together):
        texts = [attempt(one) for one in begin[start : start + together]]
        for _ in write([text for text in texts if isinstance(text, Text)]):
            pass
        results += [
            text.result if isinstance(text, Text) else Generation(finish_reason="error", error=text) for text in texts
        ]
    return results


def unless_failed(results: list[Generation]) -> list[Generation]:
    """The results of texts that have not failed; raises as `all_given`."""
    return all_given(results, {n: result.error for n, result in enumerate(results) if result.error is not None})


def prepare_session(session: Any, prompt: np.ndarray) -> int:
    """Cut the session back to the longest common prefix with the prompt, at least one token short of it; its length.

    raises  ArgumentError for an empty prompt, CapacityError for one that is longer than the capacity
    """
    if len(prompt) == 0:
        raise ArgumentError("the prompt must have at least one token")
    if len(prompt) > session.capacity:
        raise CapacityError(
            f"the prompt has {len(prompt)} tokens, more than the session's capacity of {session.capacity}"
            + getattr(session, "limit", "")  # a session of another model's may not say
        )
    common = min(session.common_prefix(prompt), len(prompt) - 1)
    session.truncate(common)
    return common


def generate(
    session: Any,
    prompt: Sequence[int],
    max_tokens: int = 128,
    sampler: Sampler | None = None,
    end_tokens: frozenset[int] = frozenset(),
    decoder: Decoder | None = None,
    costs: Costs | None = None,
) -> Generation:
    """Decode over any session, `fd.from_callable`'s included: tokens in, tokens out (`Generation.text` stays empty).

    decoder  None: Autoregressive(), of a masked diffusion model Unmask()
    costs    of the session's forwards, for decoders that weigh their guesses and have none of their own
    """
    check_has("session", session, ("forward", "truncate", "common_prefix", "capacity", "vocab_size"), "a session")
    ids = check_integers("prompt", prompt, 0, session.vocab_size - 1, empty=True)
    max_tokens = check_integer("max_tokens", max_tokens, 0, 1 << 30)
    check_costs(costs)
    measured = None if costs is None else lambda: costs
    cached = prepare_session(session, ids)
    sampler = Sampler() if sampler is None else sampler
    check_instance("sampler", sampler, Sampler)
    ends = frozenset(check_integers("end_tokens", end_tokens, 0, (1 << 31) - 1, empty=True).tolist())
    request = Request(ids, cached, sampler, max_tokens=max_tokens, end_tokens=ends, measured_costs=measured)
    if decoder is None:
        decoder = Autoregressive() if getattr(session, "causal", True) else Unmask()
    check_decoder(decoder)
    return unless_failed(written([partial(Text, session, request, decoder, None)], 1))[0]


def _log_probs(token: int, rows: Rows, row: int, count: int) -> TokenLogProbs:
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
