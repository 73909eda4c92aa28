"""Running a template: a program that came with a model, in a process of its own.

There it gets so much processor time and so much memory and then ends, whatever it does: a loop of loops, a string that
doubles, a number of a million digits.  Watching it from inside cannot promise that: one call into C may take an hour.
The process is kept for the next text, which then costs a fraction of a millisecond.
"""

from __future__ import annotations

import atexit
import marshal
import subprocess
import sys
from contextlib import suppress
from typing import Any, NamedTuple

from fastdistill.errors import ArgumentError, TextError
from fastdistill.platform import APART, OUT_OF_TIME, in_forked_child, overseen
from fastdistill.text import template_worker
from fastdistill.text.template_worker import REQUEST

# For a conversation of no length.  A published template takes at most half a millisecond for three turns, 1 s for 4,000.
SECONDS = 10.0
MEMORY = 256 << 20
TEXT = 16 << 20
# What more there is for each byte of the conversation.
SECONDS_A_BYTE = 10 / 2**20
MEMORY_A_BYTE = 32  # a few copies, each character in up to four bytes
TEXT_A_BYTE = 16
MOST_IDLE = 4  # processes kept for the next text; as many run as there are threads that ask


class Limits(NamedTuple):
    """What one text may take.

    Attributes
    ----------
    seconds : float
        of processor time; on Windows, by the clock
    memory : int
        bytes; Windows and macOS set no bound
    text : int
        bytes written
    """

    seconds: float
    memory: int
    text: int


def render_template(template: str, variables: dict[str, Any]) -> str:
    """The text of a template.

    Parameters
    ----------
    template : str
    variables : dict[str, Any]
        plain data: None, booleans, numbers, text, and lists, tuples and dicts of them

    Raises
    ------
    TextError
        where it is malformed, fails, refuses, takes more than `SECONDS` of processor time or `MEMORY` bytes, or writes
        more than `TEXT` bytes, each with what the variables add; and where there is no jinja2
    """
    try:
        data = marshal.dumps(variables, 2)
    except ValueError as error:
        raise ArgumentError(f"a template's variables must be plain data: {error}") from None
    limits = Limits(
        SECONDS + SECONDS_A_BYTE * len(data), MEMORY + MEMORY_A_BYTE * len(data), TEXT + TEXT_A_BYTE * len(data)
    )
    worker = _take()
    try:
        kind, text = worker.ask(template.encode("utf-8", "surrogatepass"), data, limits)
    except BaseException:  # Ctrl-C among them
        worker.close()
        raise
    if kind in "TRE" and len(_idle) < MOST_IDLE:
        _idle.append(worker)
    else:
        worker.close()
    if kind == "T":
        return text
    line = " ".join(text.split())
    if kind == "R":
        raise TextError(f"the chat template refuses: {line}")
    if kind == "E":
        raise TextError(f"the chat template failed: {line}")
    if kind == "M":
        raise TextError(f"the chat template takes more than {limits.memory >> 20} MB of memory")
    raise TextError(f'a chat template needs jinja2 ({line}): pip install "fastdistill[demo]"')


class _Worker:
    """One process that runs `template_worker`."""

    def __init__(self) -> None:
        command = [
            sys.executable,
            "-I",
            "-S",
            template_worker.__file__,
            *(path for path in sys.path if isinstance(path, str)),
        ]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                **APART,  # Ctrl-C is for the process that asks, which ends this one
            )
        except (OSError, ValueError) as error:
            raise TextError(f"a chat template runs in a process of its own, which cannot start: {error}") from error

    def ask(self, template: bytes, variables: bytes, limits: Limits) -> tuple[str, str]:
        """The letter and the text of the reply.

        Raises
        ------
        TextError
            where there is none, or a longer one than may be
        """
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None and sink is not None
        with overseen(self._process, limits.seconds):
            with suppress(OSError):  # it has ended, and may have said why
                sink.write(REQUEST.pack(limits.memory, limits.seconds, len(template), len(variables)) + template)
                sink.write(variables)
                sink.flush()
            head = source.read(9)
            size = int.from_bytes(head[1:], "little")
            if size > limits.text:
                raise TextError(f"the chat template writes {size:,} bytes; expected at most {limits.text:,}")
            data = source.read(size)
        if len(head) < 9 or len(data) < size:
            self.close()
            status = self._process.returncode
            if status == OUT_OF_TIME:
                raise TextError(f"the chat template takes more than {limits.seconds:.3g} s of processor time")
            raise TextError(f"the chat template ended the process it ran in: status {status}")
        return chr(head[0]), data.decode("utf-8", "surrogatepass")

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def leave(self) -> None:
        """Have nothing to do with it any more, in a process that did not start it: its pipe ends with the one that did."""
        self._process.returncode = 0
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


_idle: list[_Worker] = []  # appending and popping are atomic


def _pop() -> _Worker | None:
    with suppress(IndexError):
        return _idle.pop()
    return None


def _leave_all() -> None:
    while worker := _pop():
        worker.leave()


in_forked_child(_leave_all)  # they answer the process that started them


def _take() -> _Worker:
    while worker := _pop():
        if worker.alive():
            return worker
        worker.close()
    return _Worker()


@atexit.register
def _close_all() -> None:
    while worker := _pop():
        worker.close()
