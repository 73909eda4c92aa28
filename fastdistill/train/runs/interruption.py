"""Ctrl-C and SIGTERM: the first asks, the second ends."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

_SIGNALS = signal.SIGINT, signal.SIGTERM


class Interruption:
    """Whether somebody has asked to stop: `with Interruption() as stop: ... if stop(): ...`.

    The first signal says so on stderr and is remembered; another one ends the process at once, as if nothing waited
    for it. What was ignored stays ignored (a run that a shell started in the background), and in a thread other than
    the main one, where Python hears no signals, nobody asks.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        with suppress(OSError):  # not `print`: this may have come in the middle of one
            os.write(2, b"\nthis step is finished and saved first; Ctrl-C once more ends at once\n")
