"""The program in a process, or a terminal, of its own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import fastdistill as fd

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fd.__file__).parents[1]), "PYTHONUNBUFFERED": ""}


_STARTED: list[subprocess.Popen] = []
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def start_process(command: list[str], preexec_fn: Callable[[], object] | None = None, **settings) -> subprocess.Popen:
    """A process that can be interrupted, and does not outlive its test, nor the process of the tests, however that one ends."""
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that a script runs in the background ignore it
        if preexec_fn is not None:
            preexec_fn()

    _STARTED.append(subprocess.Popen(command, preexec_fn=prepare, **settings))
    return _STARTED[-1]


def start(*arguments: object, **settings) -> subprocess.Popen[bytes]:
    """The program, in a process of its own."""
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) | settings
    return start_process([sys.executable, "-m", "fastdistill", *map(str, arguments)], **pipes)


def end_all() -> None:
    """End what a test has left running: it failed."""
    for process in _STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
    _STARTED.clear()


class Terminal:
    """The program in a terminal of its own."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.controller, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        settings = dict(stdin=terminal, stdout=terminal, stderr=terminal, env=ENVIRONMENT | environment)
        self.process = start(*arguments, start_new_session=True, **settings)
        os.close(terminal)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def interrupt(self) -> None:
        time.sleep(0.2)  # a prompt is seen a moment before readline waits in a way that a signal ends
        self.process.send_signal(signal.SIGINT)

    def expect(self, words: str) -> str:
        """Read on until these words; what came before them."""
        deadline = time.monotonic() + 30
        while words not in self.seen:
            assert time.monotonic() < deadline, f"no {words!r} in {self.seen!r}"
            self._read()
        before, _, self.seen = self.seen.partition(words)
        return before

    def end(self) -> int:
        """The exit code, all output being read."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None:  # a full terminal would hold the program up
            assert time.monotonic() < deadline, f"goes on after {self.seen[-200:]!r}"
            self._read()
        code = self.process.wait()
        while self._read():
            pass
        os.close(self.controller)
        return code

    def _read(self) -> bool:
        if not select.select([self.controller], [], [], 0.1)[0]:
            return False
        try:
            data = os.read(self.controller, 1 << 16)
        except OSError:  # the program has closed it
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)
