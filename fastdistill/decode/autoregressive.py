"""Plain decoding: one token a forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastdistill.decode.request import Request
from fastdistill.runtime.read import Rows


@dataclass(frozen=True)
class Autoregressive:
    """The plain decoder: what every other one has to equal."""

    def start(self, session: Any, request: Request) -> AutoregressiveRun:
        return AutoregressiveRun(session, request)


class AutoregressiveRun:
    """Reads the prompt in chunks of max_rows, then one token after another."""

    def __init__(self, session: Any, request: Request) -> None:
        self._request, self._max_rows = request, session.max_rows
        self._rest = request.prompt[request.cached :]  # tokens that the session has not seen
        self._emitted = 0

    def forward(self) -> Mapping[str, Any]:
        chunk, self._rest = self._rest[: self._max_rows], self._rest[self._max_rows :]
        if len(self._rest):
            return {"tokens": chunk, "rows": ()}
        return {"tokens": chunk, "rows": "last", "read": self._request.read([self._emitted])}

    def take(self, rows: Rows) -> list[tuple[int, int]]:
        if rows.tokens is None:
            return []
        self._rest = rows.tokens.copy()
        self._emitted += 1
        return [(int(rows.tokens[0]), 0)]
