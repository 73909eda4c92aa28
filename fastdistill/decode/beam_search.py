"""Beam search: several texts are written on side by side, and those with the best scores stay.

A score is the sum of the log probabilities of a text's tokens, the one that ends it included, over their number to the
power of `length_penalty`. It is Hugging Face's search (`_beam_search` of transformers 5): the same candidates, the same
ends, the same scores.

Every beam is a session, forked from the one whose text it goes on with: beams hold the pages of keys and values that
they have in common, one of 64 tokens is copied where they part, and those of a beam that is given up take the copy.
So memory is at most that of the prompt and of `num_beams` answers, and all beams are rows of one pass, beside other
texts. (A tree of pending rows in one session would copy no page, but its paths lie scattered: attention reads keys 16
slots at a time, and would read 16 for each one that it needs, for as long as beams stay apart, which may be for ever.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import check_integer, check_number
from fastdistill.decode.allowed import chosen_tokens
from fastdistill.decode.generation import TokenLogProbs, log_probs_of
from fastdistill.decode.request import Hypothesis, Request, Run, Speller
from fastdistill.errors import ArgumentError
from fastdistill.kernels.distill.top_k import top_k
from fastdistill.kernels.sample.sample import Sampler, repeating
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows
from fastdistill.runtime.session import Session

MOST_BEAMS = 1 << 10
MOST_PENALTY = 30.0  # the longest text's 2^30 tokens to this power are 2^900, and a float64 holds 2^1023
_LOGITS = Read(logits=True)
_DRAWING = ("temperature", "top_k", "top_p", "min_p")  # settings of a Sampler that say how a token is drawn


def drawn_by(sampler: Sampler) -> dict[str, float]:
    """Settings by which a sampler draws tokens, each with what it is where nothing is drawn."""
    plain = Sampler()
    return {name: getattr(plain, name) for name in _DRAWING if getattr(sampler, name) != getattr(plain, name)}


@dataclass(frozen=True)
class BeamSearch:
    """Search for the likeliest text: `num_beams` texts at a time, as transformers' `generate(num_beams=...)` does.

    Parameters
    ----------
    num_beams : int, default 4
        texts that are written on in each forward, a row each; at least 2, since one is plain decoding
    length_penalty : float, default 1.0
        a text's score is the sum of its log probabilities / its tokens ** length_penalty: above 0 favours long texts,
        below 0 short ones; in [-30, 30]
    early_stopping : bool | str, default False
        when to end, with num_beams ended texts at hand. True: at once. False: when the best of the others, had it ended
        now, would not be among them. "never": when it cannot come among them, however long it may get

    Raises
    ------
    ArgumentError

    Notes
    -----
    `generate` gives the best text, its `score`, and as `runners_up` the others that the search has ended with; with `n`
    it gives the n best. A text ends by a token that ends it, or is cut at `max_tokens`. It becomes certain when all is
    over, so `stream` gives it in one piece.

    Of what may change a token's probability, `allowed`, `min_tokens`, `logit_bias`, penalties and `no_repeat_ngram_size` apply to log
    probabilities, which are not normalised again, as transformers does. Nothing is drawn: a temperature above 0, top_k,
    top_p and min_p are refused. A session that is given holds the prompt afterwards.

    A stop string ends a text as in plain decoding: with the token that completes it in what this call writes. The score
    counts that token, as transformers' does (whose `stop_strings` may also begin in the prompt).

    Examples
    --------
    >>> model = fd.load(folder)
    >>> best, second = model.generate("Once upon a time", n=2, max_tokens=8, decoder=fd.BeamSearch(num_beams=3))
    >>> best.score >= second.score
    True
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        check_integer("num_beams", self.num_beams, 2, MOST_BEAMS)
        check_number("length_penalty", self.length_penalty, -MOST_PENALTY, MOST_PENALTY)
        if not isinstance(self.early_stopping, (bool, str)) or self.early_stopping not in (True, False, "never"):
            raise ArgumentError(f'early_stopping must be True, False or "never", got {short(self.early_stopping)}')

    takes_constraint = True

    def start(self, session: SessionLike, request: Request) -> BeamSearchRun:
        drawing = drawn_by(request.sampler)
        if drawing:
            name, plain = next(iter(drawing.items()))
            raise ArgumentError(f"beam search draws nothing: leave {name} at {plain}")
        return BeamSearchRun(self, session, request)


class Beam(NamedTuple):
    """A text that is written on.

    Attributes
    ----------
    total : float
        the sum of its log probabilities, as processors have left them
    tokens : list[int]
        so far
    logprobs : list[TokenLogProbs]
        one entry a token, where asked for
    session : SessionLike
        holds the prompt and all of its tokens but the last
    stops : Speller | None
        has taken its tokens, to find stop strings; None: there are none
    state : Any
        of the constraint, behind its tokens; None: there is none
    """

    total: float
    tokens: list[int]
    logprobs: list[TokenLogProbs]
    session: SessionLike
    stops: Speller | None
    state: Any


class Candidate(NamedTuple):
    """A beam and a token that may follow it.

    Attributes
    ----------
    total : float
        as of the beam that they would be
    beam : int
        its number
    token : int
        what follows
    stops : Speller | None
        of the beam that they would be, once it has been looked for; None: there are none
    """

    total: float
    beam: int
    token: int
    stops: Speller | None = None


class BeamSearchRun(Run):
    """Reads the prompt in chunks, then a token of each beam a forward; the tokens of the best text come with the last one."""

    def __init__(self, settings: BeamSearch, session: SessionLike, request: Request) -> None:
        self._settings, self._session, self._request = settings, session, request
        self.unread = len(request.prompt) - request.cached
        self._guided = request.guided(session.vocab_size)
        state = None if self._guided is None else self._guided.state
        self._beams = [Beam(0.0, [], [], session, request.stops, state)]  # before the first token, the prompt
        self._ended: list[Hypothesis] = []  # the best ones that have ended, the best first
        self._written = 0  # tokens of each beam
        # Tokens that a text may have: the last one needs no place.
        self._limit = min(request.max_tokens, session.capacity - len(request.prompt) + 1)
        # So many are looked at that as many as there are beams go on, whatever ends.
        self._most = max(2, 1 + len(request.end_tokens)) * settings.num_beams
        self._mask = self._allowed(0)

    @property
    def decoding(self) -> bool:
        return self._written > 0

    def forward(self) -> Forward | Sequence[tuple[SessionLike, Forward]]:
        if self._written:
            return [(beam.session, self._next(beam)) for beam in self._beams]
        session = self._session
        rest = self._request.prompt[session.length :]  # as it is: the pass before may have been interrupted
        chunk = rest[: min(session.max_rows, self.room)]
        self.unread = len(rest) - len(chunk)
        return Forward(chunk, rows=()) if self.unread else Forward(chunk, rows="last", read=_LOGITS)

    def _next(self, beam: Beam) -> Forward:
        read = len(self._request.prompt) + self._written - 1
        if beam.session.length > read:  # an interrupt came behind the pass
            beam.session.truncate(read)
        return Forward(beam.tokens[-1:], rows="last", read=_LOGITS)

    def take(self, rows: Rows, *others: Rows) -> list[tuple[int, int]]:
        if rows.logits is None or not len(rows.logits):  # the prompt is still being read
            return []
        given = [rows, *others]
        candidates = self._candidates(given)
        written, num_beams = self._written + 1, self._settings.num_beams
        ended, going = list(self._ended), list[Candidate]()
        for rank, candidate in enumerate(candidates):
            if len(going) == num_beams:
                break
            stops = self._stops(candidate)
            stopped = stops is not None and stops.stopped
            if written < self._limit and candidate.token not in self._request.end_tokens and not stopped:
                going.append(candidate._replace(stops=stops))
            elif rank < num_beams:  # those behind are there for the beams that go on
                tokens, logprobs = self._followed(candidate, given)
                ended.append(Hypothesis(tokens, candidate.total / self._weight(written), logprobs))
        ended = sorted(ended, key=lambda hypothesis: -hypothesis.score)[:num_beams]
        if self._is_over(ended, going, written):
            return self._end(ended)
        beams = self._forked(going, given)
        mask = self._allowed(written)
        self._beams, self._ended, self._written, self._mask = beams, ended, written, mask
        return []

    def _allowed(self, number: int) -> np.ndarray | None:
        """Which tokens may be token `number` of a text, bool (vocab,); None: all."""
        request, vocab_size = self._request, self._session.vocab_size
        masks = request.masks([number])
        allowed = None if masks is None else chosen_tokens(masks[0], vocab_size)
        if request.banned is not None:
            allowed = np.ones(vocab_size, bool) if allowed is None else allowed.copy()
            allowed[request.banned] = False
        return allowed

    def _mask_of(self, beam: Beam) -> np.ndarray | None:
        """Which tokens may follow a beam, bool (vocab,); None: all."""
        if self._guided is None:
            return self._mask
        mask = chosen_tokens(self._guided.masks([beam.state])[0], self._session.vocab_size)
        return mask if self._mask is None or mask is None else mask & self._mask

    def _candidates(self, given: Sequence[Rows]) -> list[Candidate]:
        """The best continuations of all beams, the best first; of equal ones that of the first beam, and the lowest token."""
        totals, beams, tokens = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
        for number, (beam, rows) in enumerate(zip(self._beams, given, strict=True)):
            follow, log_probs = self._likeliest(beam, rows)
            totals.append(beam.total + log_probs)
            beams.append(np.full(len(follow), number))
            tokens.append(follow)
        total, token, of = np.concatenate(totals), np.concatenate(tokens), np.concatenate(beams)
        order = np.lexsort((token, of, -total))[: self._most]
        found = zip(total[order].tolist(), of[order].tolist(), token[order].tolist(), strict=True)
        return [Candidate(*each) for each in found if each[0] != -np.inf]

    def _likeliest(self, beam: Beam, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that may follow a beam, int32 (k,), and their log probabilities, float64 (k,)."""
        assert rows.logits is not None  # `forward` asked for them
        if self._mask is not None and self._request.given(self._written) is not None:  # certain, as transformers has it
            (given,) = np.nonzero(self._mask)
            return given.astype(np.int32), np.zeros(len(given))
        count, log_sum = min(self._most, rows.logits.shape[1]), rows.statistics.log_sum_exp[0]
        mask, sampler = self._mask_of(beam), self._request.sampler
        if mask is None and not sampler.penalises and not sampler.logit_bias:
            tokens, logits = top_k(rows.logits, count)
            return tokens[0], logits[0].astype(np.float64) - np.float64(log_sum)
        log_probs = rows.logits[0] - log_sum
        seen = np.array(beam.tokens, np.int32) if sampler.penalises else None
        _process(log_probs, sampler, mask, self._request.prompt, seen)
        if log_probs.max() == -np.inf:
            return np.empty(0, np.int32), np.empty(0)
        tokens, log_probs = top_k(log_probs[None], count)
        return tokens[0], log_probs[0].astype(np.float64)

    def _stops(self, candidate: Candidate) -> Speller | None:
        """Where stop strings are looked for behind a candidate; None: there are none."""
        stops = self._beams[candidate.beam].stops
        if stops is not None:
            stops = stops.fork()
            stops.push(candidate.token)
        return stops

    def _followed(self, candidate: Candidate, given: Sequence[Rows]) -> tuple[list[int], list[TokenLogProbs]]:
        """The tokens of a candidate, and what is told of their probabilities."""
        beam, count = self._beams[candidate.beam], self._request.logprobs
        told = [log_probs_of(candidate.token, given[candidate.beam], 0, count)] if count else []
        return [*beam.tokens, candidate.token], [*beam.logprobs, *told]

    def _is_over(self, ended: Sequence[Hypothesis], going: Sequence[Candidate], written: int) -> bool:
        early = self._settings.early_stopping
        if not going or len(ended) < self._settings.num_beams:
            return not going
        longest = early == "never" and self._settings.length_penalty > 0
        return early is True or going[0].total / self._weight(self._limit if longest else written) <= ended[-1].score

    def _weight(self, tokens: int) -> float:
        return float(tokens) ** float(self._settings.length_penalty)

    def _forked(self, going: Sequence[Candidate], given: Sequence[Rows]) -> list[Beam]:
        """The beams that go on: the first that follows one takes its session over, others have forks, as the prompt's has."""
        taken = {0} if self._written == 0 else set[int]()
        following = {candidate.beam for candidate in going} | taken
        idle = [beam.session for number, beam in enumerate(self._beams) if number not in following]
        beams = list[Beam]()
        for candidate in going:
            session = self._beams[candidate.beam].session
            if candidate.beam in taken:
                session = _fork(session, idle)
            taken.add(candidate.beam)
            state = None
            if self._guided is not None:
                state = self._guided.advance(self._beams[candidate.beam].state, candidate.token)
            beams.append(Beam(candidate.total, *self._followed(candidate, given), session, candidate.stops, state))
        return beams

    def _end(self, ended: list[Hypothesis]) -> list[tuple[int, int]]:
        if not ended:
            raise ArgumentError("no text can be written: every token is banned")
        self._beams, self.hypotheses = [], ended  # their sessions are free
        return [(token, 0) for token in ended[0].tokens]


def _fork(session: SessionLike, idle: list[SessionLike]) -> SessionLike:
    """A fork, in the place of one that nobody needs, where there is one: its pages serve again."""
    other = idle.pop() if idle else None
    if not isinstance(session, Session) or not isinstance(other, Session):
        return session.fork()
    other.share(session, session.length)
    return other


def _process(
    log_probs: np.ndarray, sampler: Sampler, mask: np.ndarray | None, prompt: np.ndarray, seen: np.ndarray | None
) -> None:
    """Do to log probabilities what `sample` does to logits: bans, bias, penalties, in this order.

    Parameters
    ----------
    log_probs : float32 (vocab,)
        changed in place
    sampler : Sampler
    mask : bool (vocab,), optional
        True where a token is allowed; None: everywhere
    prompt : int32 (n,)
    seen : int32 (m,), optional
        the answer so far; None: no penalty counts it
    """
    if mask is not None:
        log_probs[~mask] = -np.inf
    with np.errstate(over="ignore"):  # what is below the float32 numbers is a ban
        if sampler.logit_bias:
            biases = np.array(list(sampler.logit_bias.values()), np.float64)
            log_probs[list(sampler.logit_bias)] += biases.astype(np.float32)
        if seen is None:
            return
        text = np.concatenate([prompt, seen])
        if sampler.no_repeat_ngram_size:
            log_probs[repeating(text, sampler.no_repeat_ngram_size)] = -np.inf
        there, penalty = np.unique(text), np.float32(sampler.repetition_penalty)
        values = log_probs[there]
        log_probs[there] = np.where(values < 0, values * penalty, values / penalty)
        there, times = np.unique(seen, return_counts=True)
        log_probs[there] -= times.astype(np.float32) * np.float32(sampler.frequency_penalty)
        log_probs[there] -= np.float32(sampler.presence_penalty)
