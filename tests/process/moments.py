"""Moments of some work: the lines of Python that it runs in files of the package, counted.

A signal's handler runs between two of them; so something may be had to happen at each, and at the same one again.  Lines of
`with` are none: the one at which a block ends is traced before the block's `__exit__`, where Python handles no signal.
"""

from __future__ import annotations

import gc
import linecache
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
        if event == "line" and not linecache.getline(name, frame.f_lineno).lstrip().startswith("with "):
            lines += 1
            if lines == count:
                happens()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def moments(work: Callable[[], object], count: int, within: tuple[str, ...] = ("",)) -> list[int]:
    """So many of its lines, in random order: of each share of them one; a work that is done the second time has fewer lines."""
    work()
    gc.collect()  # what others have left would have lines too, as it goes
    lines, chance = at_line(work, 0, lambda: None, within), random.Random(count)
    found = [1 + int(lines * (share + chance.random()) / count) for share in range(count)]
    chance.shuffle(found)
    return found


def interrupted(work: Callable[[], object], count: int) -> bool:
    """Work, and be interrupted at the count-th line; False where it had ended before."""

    def interrupt():
        raise KeyboardInterrupt

    try:
        at_line(work, count, interrupt)
    except KeyboardInterrupt:
        return True
    return False
