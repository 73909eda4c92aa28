"""One line on stderr that says how far a long bench has come."""

from __future__ import annotations

import sys


class Progress:
    """Rewrites its line on a terminal; elsewhere each group gets one line."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def group(self, name: str) -> None:
        self._name = name
        self._show(name)
        if not self._terminal:
            print(name, file=sys.stderr, flush=True)

    def step(self, done: int, total: int) -> None:
        self._show(f"{self._name}  {done} of {total}")

    def end(self) -> None:
        self._show("")

    def _show(self, text: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)
