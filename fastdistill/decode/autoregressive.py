"""Plain decoding: one token a forward."""

from __future__ import annotations

from dataclasses import dataclass

from fastdistill.decode.request import Request, Run
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows, draws_alone

SPELL = 0.03  # seconds that text may wait while a session goes on by itself: too few to be seen
MOST_AHEAD = 15


@dataclass(frozen=True)
class Autoregressive:
    """The plain decoder: what every other one has to equal."""

    takes_constraint = True

    def start(self, session: SessionLike, request: Request) -> AutoregressiveRun:
        return AutoregressiveRun(session, request)


class AutoregressiveRun(Run):
    """Reads the prompt in chunks, then one token after another: several a forward where the session goes on by itself.

    Attributes
    ----------
    guided : Guided | None
        where the constraint is, behind what it has written; None: there is none
    """

    def __init__(self, session: SessionLike, request: Request) -> None:
        self._request, self._session = request, session
        self.guided = request.guided(session.vocab_size)
        self._emitted, self.unread = 0, len(request.prompt) - request.cached
        self._last = request.prompt[:0]  # the token drawn last, which the session has not seen
        self._until = request.end_tokens
        self._free = request.free_tokens
        self._goes_on = session.runs_ahead and self._free > 1 and draws_alone(request.read([1]))
        self._ahead = 0

    def forward(self) -> Forward:
        if self._emitted:
            ahead = 0
            if self._goes_on and self.together == 1:
                ahead = max(min(self._ahead, self._free - self._emitted - 1), 0)
            read = self._read(self._emitted)
            return Forward(self._last, rows="last", read=read, ahead=ahead, until=self._until)
        rest = self._request.prompt[self._session.length :]  # as it is: the pass before may have been interrupted
        chunk = rest[: min(self._session.max_rows, self.room)]
        self.unread = len(rest) - len(chunk)
        if self.unread:
            return Forward(chunk, rows=())
        return Forward(chunk, rows="last", read=self._read(0))

    def _read(self, number: int) -> Read:
        guided = self.guided
        return self._request.read([number], None if guided is None else guided.masks([guided.here]))

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        if rows.tokens is None:
            return []
        tokens = rows.tokens.tolist()
        if self._emitted:
            self.passes = len(tokens)
            self._ahead = min(MOST_AHEAD, int(SPELL * len(tokens) / self.seconds)) if self.seconds else 0
        if self.guided is not None:
            self.guided.write(tokens)
        self._last = rows.tokens[-1:]
        self._emitted += len(tokens)
        return [(token, row) for row, token in enumerate(tokens)]
