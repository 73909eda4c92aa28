"""One kernel on every level and thread count: checked against its reference, then timed beside NumPy."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial

from bench.lib.report import Report
from bench.lib.timing import Timer, measure
from fastdistill.kernels import isa, set_isa


def compare(
    report: Report,
    options: Namespace,
    case: str,
    kernel: Callable[[int], object],
    check: Callable[[object], None],
    numpy: Callable[[], object],
    *,
    threaded: bool = True,
    bandwidth: float = 0.0,
    moved: int = 0,
    operations: int = 0,
    peers: Mapping[str, Callable[[], object]] | None = None,
) -> None:
    """Add one row for NumPy, one for each peer, and one for each level and thread count.

    kernel      called with a number of threads (1, where it is not `threaded`)
    check       is given the kernel's result on each level; raises AssertionError
    numpy       the same work by plain NumPy, or the nearest thing to it
    bandwidth   bytes a second; with `moved`, the bytes that a call has to read and write
    operations  additions and multiplications of a call
    peers       the same work by others, by their names
    """
    before = isa()
    timers = {name: Timer(call) for name, call in {"numpy": numpy, **(peers or {})}.items()}
    for level in options.levels:
        set_isa(level)
        for threads in options.threads if threaded else [1]:
            check(kernel(threads))
            timers[f"{level} {threads}"] = Timer(partial(kernel, threads), prepare=partial(set_isa, level))
    seconds = measure(timers, options.repetitions)
    set_isa(before)
    for name, taken in seconds.items():
        level, _, threads = name.partition(" ")
        cells = {"case": case, "level": level, "threads": threads or "-", "microseconds": taken * 1e6}
        if moved:
            cells["GB/s"] = moved * 1e-9 / taken
            cells["of bandwidth"] = f"{moved / taken.median / bandwidth:.0%}"
        if operations:
            cells["Gop/s"] = operations * 1e-9 / taken
        report.row(**cells, **{"x numpy": seconds["numpy"] / taken})
