"""A divergence with its gradient: checked, then timed beside torch's autograd, and its memory beside that."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.lib.machine import bandwidth
from bench.lib.report import Report
from bench.lib.timing import Timer, measure
from fastdistill.kernels import RowDivergence, isa, set_isa
from fastdistill.kernels.distill.kinds import KINDS

ROWS, VOCAB = 512, 49152
CHECKED = 2  # rows that are compared with the reference


class Case(NamedTuple):
    """One objective.

    Attributes
    ----------
    cells : dict
        what names it in its rows of the report
    call : Callable
        given a number of threads
    check : Callable
        given its result on each level; raises AssertionError
    torch : Callable, or None
        the same by autograd; None where torch is not installed
    moved : int
        bytes that a call has to read and write
    memory : Callable
        bytes at the peak of "ours" or "torch"
    """

    cells: dict[str, Any]
    call: Callable[[int], RowDivergence]
    check: Callable[[RowDivergence], None]
    torch: Callable[[], Any] | None
    moved: int
    memory: Callable[[str], int]


def parameter_of(kind: str) -> float | None:
    wanted = KINDS[kind].parameter
    return wanted.default if wanted else None


def random_logits(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal((ROWS, VOCAB), np.float32) * 3


def autograd(objective: Callable[[Any], Any], student: np.ndarray, threads: int) -> Callable[[], Any]:
    """Value and gradient of objective(student) under torch."""
    import torch

    torch.set_num_threads(threads)
    given = torch.from_numpy(student)

    def call() -> Any:
        leaf = given.detach().requires_grad_()
        objective(leaf).backward()
        return leaf.grad

    return call


def time_case(report: Report, options: Namespace, case: Case) -> None:
    """Add one row for torch, and one for each level and thread count."""
    threads, before = max(options.threads), isa()
    speed, timers = bandwidth(threads), {}
    for level in options.levels:
        set_isa(level)
        for count in options.threads:
            call = partial(case.call, count)
            case.check(call())
            timers[f"{level} {count}"] = Timer(call, prepare=partial(set_isa, level))
    if case.torch:
        timers["torch"] = Timer(case.torch)
    seconds = measure(timers, options.repetitions)
    set_isa(before)
    for name, taken in seconds.items():
        level, _, count = name.partition(" ")
        cells = {**case.cells, "level": level, "threads": count or threads, "milliseconds": taken * 1e3}
        cells["of bandwidth"] = f"{case.moved / taken.median / speed:.0%}"
        if case.torch:
            cells["x torch"] = seconds["torch"] / taken
        if name == "torch" or name == f"{options.levels[-1]} {threads}":
            cells["MB beside"] = case.memory("torch" if name == "torch" else "ours") / 1e6
        report.row(**cells)


def note(report: Report, threads: int, read: str) -> None:
    report.note(
        f"Of bandwidth: {read} read once and the gradient written once, at {bandwidth(threads) * 1e-9:.1f} GB/s of {threads} threads.  "
        f"MB beside: peak memory beyond inputs and gradient; two rows a thread are {2 * threads * VOCAB * 4 / 1e6:.1f} MB.  "
        "Liger publishes up to 80 % less memory for its fused losses on a GPU than torch takes."
    )
