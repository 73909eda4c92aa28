"""Moments of some work: the lines of Python that it runs in files of the package, counted.

A signal's handler runs between two lines; so something may be had to happen at each of them, and at the same one again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import fastdistill as fd

PACKAGE = str(Path(fd.__file__).parent)


def at_line(
    work: Callable[[], object], count: int, happens: Callable[[], None], within: tuple[str, ...] = ("",)
) -> int:
    """Work; at the count-th line something happens. How many lines there were.

    `within` holds parts of names: of files of the package, one of which a file has to have.
    """
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or not any(part in name for part in within):
            return None
        lines += event == "line"
        if event == "line" and lines == count:
            happens()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def lines_of(work: Callable[[], object], within: tuple[str, ...] = ("",)) -> int:
    """How many there are, and so how many moments."""
    return at_line(work, 0, lambda: None, within)


def interrupted(work: Callable[[], object], count: int) -> bool:
    """Work, and be interrupted at the count-th line; False where it had ended before."""

    def interrupt():
        raise KeyboardInterrupt

    try:
        at_line(work, count, interrupt)
    except KeyboardInterrupt:
        return True
    return False


def some(lines: int, count: int, seed: int = 0) -> list[int]:
    """So many of the moments, in random order: of each share of them one."""
    chance = random.Random(seed)
    found = [
        1 + chance.randrange(lines * i // count, max(lines * (i + 1) // count, lines * i // count + 1))
        for i in range(count)
    ]
    chance.shuffle(found)
    return found
