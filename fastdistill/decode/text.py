"""One text being written: takes a decoder's tokens and cuts them where the text ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastdistill.decode.generation import Generation, Piece, log_probs_of
from fastdistill.decode.request import Decoder, Hypothesis, Request, Run, Speller
from fastdistill.errors import ArgumentError, BusyError, CapacityError, attempt
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Rows


class Text:
    """A text in a session of its own, from the first forward to the last.

    Attributes
    ----------
    session : SessionLike
        what it is written in
    request : Request
        what is asked for
    run
        the decoder's
    result : Generation
        what there is of it so far
    """

    def __init__(self, session: SessionLike, request: Request, decoder: Decoder, speller: Speller | None) -> None:
        self.session, self.request, self._speller = session, request, speller
        self.run = decoder.start(session, request)
        if not isinstance(self.run, Run):
            raise ArgumentError(f"what a decoder's start gives must be a decode.Run, got {short(self.run)}")
        self._mark = session.writer = (
            object()
        )  # a second text takes the session over; no text, which would hold the session
        self.result = Generation(logprobs=[] if request.logprobs else None, trace=self.run.trace)
        self.result.stats.prompt_tokens = len(request.prompt)
        self.result.stats.reused_tokens = session.length  # a decoder may have forgotten some
        self._told = 0  # tokens that pieces have held
        if request.max_tokens == 0:
            self.result.finish_reason = "length"

    @property
    def finished(self) -> bool:
        return bool(self.result.finish_reason)

    def ask(self, together: int, room: int) -> Sequence[tuple[SessionLike, Forward]]:
        """What to run next, and where, in a pass that so many texts share and that has room for so many rows of a prompt."""
        if self.session.writer is not self._mark:
            raise BusyError("another text has been started in this session; the first one cannot go on")
        self.run.together, self.run.room = together, room
        asked = self.run.forward()
        return [(self.session, asked)] if isinstance(asked, Forward) else asked

    def answer(self, given: Sequence[Rows | Exception], seconds: float) -> Piece | None:
        """Account for what was asked for, or for what went wrong in it; what has become certain, if anything has."""
        rows = [each for each in given if not isinstance(each, Exception)]
        failed = [each for each in given if isinstance(each, Exception)]
        text = failed[0] if failed else attempt(self._take, rows, seconds)
        return self.fail(text) if isinstance(text, Exception) else self._piece(text)

    def fail(self, error: Exception) -> Piece:
        """End with an error: what is certain stays, in the session too."""
        self.result.error = error
        return self.end("error")

    def end(self, reason: str) -> Piece:
        """End here, whatever the decoder was about; the last of the text."""
        self.result.finish_reason = reason
        text = "" if self._speller is None else attempt(self._speller.finish)
        if self.session.writer is self._mark:
            attempt(self._keep_what_is_sure)
        piece = self._piece("" if isinstance(text, Exception) else text)
        assert piece is not None  # the last one
        return piece

    def _piece(self, text: str) -> Piece | None:
        """The text that has become certain, with the tokens since the last piece; without text, tokens are certain as they come."""
        result = self.result
        result.text += text
        if not (text or result.finish_reason or (self._speller is None and len(result.tokens) > self._told)):
            return None
        new = slice(self._told, len(result.tokens))
        self._told = len(result.tokens)
        log_probs = None if result.logprobs is None else result.logprobs[new]
        return Piece(text, result.tokens[new], log_probs, result.finish_reason or None)

    def _take(self, given: Sequence[Rows], seconds: float) -> str:
        stats, result, run = self.result.stats, self.result, self.run
        run.seconds = seconds
        decoding = bool(result.tokens) if run.decoding is None else run.decoding
        started = time.perf_counter()
        taken = run.take(*given)
        seconds += time.perf_counter() - started
        stats.committed = run.committed
        if decoding:
            stats.decode_seconds += seconds
        else:
            stats.prefill_seconds += seconds
        text, before = "", len(result.tokens)
        for token, row in taken:
            result.tokens.append(token)
            stats.new_tokens += 1
            if result.logprobs is not None and not run.hypotheses:
                asked, number = self.request.logprobs, len(result.tokens) - 1
                result.logprobs.append(
                    log_probs_of(token, given[0], row, asked) if run.said is None else run.said[number]
                )
            if self._speller is not None:
                text += self._speller.push(token)
            result.finish_reason = self._reason(token, len(result.tokens), self._speller)
            if result.finish_reason:
                break  # what a decoder accepted beyond the end is not part of the text
        known = len(result.rounds)
        kept = len(result.tokens) - before
        for round in run.rounds[len(result.rounds) :]:
            if kept <= 0 and len(result.rounds) > known:
                break  # those behind the end are none of the text's
            kept -= round.tokens
            if kept < 0:  # the text has ended within them
                accepted = kept + round.tokens
                recycled = max(round.recycled - (round.accepted - accepted), 0)  # these come last
                round = replace(round, accepted=accepted, refused=(), recycled=recycled, ended=True)
            result.rounds.append(round)
            stats.drafted, stats.accepted = stats.drafted + round.drafted, stats.accepted + round.accepted
            stats.recycled += round.recycled
        if decoding:  # passes beyond the text's end are none of its forwards
            passes = len(result.rounds) - known if run.rounds else run.passes
            stats.forwards += min(passes, max(len(result.tokens) - before, 1))
        if result.finish_reason:
            self._leave_as_plain_decoding()
            if self._speller is not None:
                text += self._speller.finish()
                if self._speller.stopped:  # by what only the end has made certain
                    result.finish_reason = "stop"
            if run.hypotheses:
                best, *others = run.hypotheses
                result.score = best.score
                result.logprobs = None if result.logprobs is None else best.logprobs
                result.runners_up = [self._runner_up(each) for each in others]
        return text

    def _runner_up(self, found: Hypothesis) -> Generation:
        speller = None if self._speller is None else self._speller.fresh()
        text = "" if speller is None else "".join(map(speller.push, found.tokens)) + speller.finish()
        return Generation(
            text, found.tokens, self._reason(found.tokens[-1], len(found.tokens), speller),
            stats=replace(self.result.stats, new_tokens=len(found.tokens)),
            logprobs=None if self.result.logprobs is None else found.logprobs, score=found.score,
        )  # fmt: skip

    def _leave_as_plain_decoding(self) -> None:
        """Leave the session as plain decoding would: the last token of the text has not been read."""
        length = len(self.request.prompt) + len(self.result.tokens) - 1
        if self.session.length > length:
            self.session.truncate(length)

    def _keep_what_is_sure(self) -> None:
        text = np.concatenate([self.request.prompt, np.array(self.result.tokens, np.int32)])
        self.session.truncate(self.session.common_prefix(text))

    def _reason(self, token: int, written: int, speller: Speller | None) -> str:
        """Why a text of so many tokens ends with this one; "" where it does not."""
        most = written >= self.request.max_tokens
        if most and self.request.allowed_last is not None:  # it had no choice
            return "length"
        if token in self.request.end_tokens or (speller is not None and speller.stopped):
            return "stop"
        if most:
            return "length"
        if self.request.within:  # their places are the prompt's
            return ""
        # The last token needs no place until another one is to follow it, unless that one needs its own before it is there.
        places = len(self.request.prompt) + written + self.run.needs_place
        return "capacity" if places > self.session.capacity else ""


def prepare_session(session: SessionLike, prompt: np.ndarray) -> int:
    """Cut the session back to the longest common prefix with the prompt, at least one token short of it; its length.

    Raises
    ------
    ArgumentError
        for an empty prompt
    CapacityError
        for one that is longer than the capacity
    """
    if len(prompt) == 0:
        raise ArgumentError("the prompt must have at least one token")
    if len(prompt) > session.capacity:
        raise CapacityError(
            f"the prompt has {len(prompt)} tokens, more than the session's capacity of {session.capacity}{session.limit}"
        )
    common = min(session.common_prefix(prompt), len(prompt) - 1)
    session.truncate(common)
    return common
