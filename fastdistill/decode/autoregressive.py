"""Plain decoding: one token a forward."""

from __future__ import annotations

from dataclasses import dataclass

from fastdistill.decode.request import Request, Run
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Rows


@dataclass(frozen=True)
class Autoregressive:
    """The plain decoder: what every other one has to equal."""

    def start(self, session: SessionLike, request: Request) -> AutoregressiveRun:
        return AutoregressiveRun(session, request)


class AutoregressiveRun(Run):
    """Reads the prompt in chunks, then one token after another."""

    def __init__(self, session: SessionLike, request: Request) -> None:
        self._request, self._max_rows = request, session.max_rows
        self._rest = request.prompt[request.cached :]  # tokens that the session has not seen
        self._emitted, self.unread = 0, len(self._rest)

    def forward(self) -> Forward:
        most = min(self._max_rows, self.room)
        chunk, self._rest = self._rest[:most], self._rest[most:]
        self.unread = len(self._rest)
        if self.unread:
            return Forward(chunk, rows=())
        return Forward(chunk, rows="last", read=self._request.read([self._emitted]))

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        if rows.tokens is None:
            return []
        self._rest = rows.tokens.copy()
        self._emitted += 1
        return [(int(rows.tokens[0]), 0)]
