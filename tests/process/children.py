"""Processes that a test forks: what they return, or how they end."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
SECONDS = 120.0  # a child that takes longer hangs


def in_child(function: Callable[[], Found], seconds: float = SECONDS) -> Found:
    """What a function returns in a forked process, which ends with it; an error there fails here, and so does a hang."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                found, failed = function(), ""
            except BaseException:
                found, failed = None, traceback.format_exc()
            with open(writing, "wb") as pipe:
                pickle.dump((found, failed), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    answer, deadline = b"", time.monotonic() + seconds
    with open(reading, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0] and (part := pipe.read(1 << 16)):
            answer += part
    hangs = time.monotonic() >= deadline
    if hangs:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not hangs, "the forked process hangs"
    assert answer, f"the forked process ended by status {status}"
    found, failed = pickle.loads(answer)
    assert not failed, failed
    return found


def status_of(function: Callable[[], object]) -> int:
    """How a forked process ends that does this: 0, 1 where an error came out of it, or the signal that ended it as a negative number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tasks() -> int:
    """Threads of this process, those of C included."""
    return len(os.listdir("/proc/self/task"))


def children() -> list[int]:
    """Processes that this one has started and not waited for."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += map(int, file.read().split())
    return found
