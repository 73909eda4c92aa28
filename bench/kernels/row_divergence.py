"""Divergences with their gradient, 512 rows of 49152 logits in float32: time beside torch's autograd, memory beyond inputs and outputs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.lib.machine import bandwidth
from bench.lib.report import Report
from bench.lib.timing import Timer, measure
from fastdistill.kernels import RowDivergence, isa, row_divergence, set_isa
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.row_divergence import row_divergence as reference_row_divergence

ROWS, VOCAB = 512, 49152
CHECKED = 2  # rows that are compared with the reference
# argv: kind, whose, threads.  Peak of a process of its own, beyond what it had when inputs and output were there.
_MEMORY = """
import sys
import numpy as np
from bench.kernels.row_divergence import logits, torch_call
from fastdistill.kernels import row_divergence
kind, whose, threads = sys.argv[1:]
def kilobytes(line):
    return next(int(words.split()[1]) for words in open("/proc/self/status") if words.startswith(line))
student, teacher = logits(kind)
out = np.zeros_like(student)
run = torch_call(kind, student[:2], None if teacher is None else teacher[:2], int(threads)) if whose == "torch" else None
if run:
    run()
else:
    row_divergence(student[:2], None if teacher is None else teacher[:2], kind, threads=int(threads))
run = torch_call(kind, student, teacher, int(threads)) if whose == "torch" else None
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
if run:
    run()
else:
    row_divergence(student, teacher, kind, out=out, threads=int(threads))
print((kilobytes("VmHWM") - before) * 1024)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="KIND,...", help="default: all")
    parser.set_defaults(repetitions=5)


def logits(kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    random = np.random.default_rng(0)
    student = random.standard_normal((ROWS, VOCAB), np.float32) * 3
    return student, None if kind == "entropy" else random.standard_normal((ROWS, VOCAB), np.float32) * 3


def torch_call(kind: str, student: np.ndarray, teacher: np.ndarray | None, threads: int) -> Callable[[], Any] | None:
    """Value and gradient of the same formula under autograd; None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    from bench.lib.torch_objectives import divergence

    torch.set_num_threads(threads)
    given, target = torch.from_numpy(student), None if teacher is None else torch.from_numpy(teacher)
    parameter = KINDS[kind].parameter

    def call() -> Any:
        leaf = given.detach().requires_grad_()
        divergence(kind, leaf, target, parameter.default if parameter else None).backward()
        return leaf.grad

    return call


def check(kind: str, found: RowDivergence, student: np.ndarray, teacher: np.ndarray | None) -> None:
    parameter = KINDS[kind].parameter
    few = None if teacher is None else teacher[:CHECKED]
    values, _, gradient = reference_row_divergence(
        student[:CHECKED], few, kind, parameter.default if parameter else None
    )
    # Logarithms of 40 at most to 2^-24 each, and sums of 64 terms a lane.
    np.testing.assert_allclose(found.values[:CHECKED], values, rtol=2e-5)
    np.testing.assert_allclose(found.gradient[:CHECKED] * ROWS, gradient, atol=2e-4)


def memory(kind: str, whose: str, threads: int) -> int:
    return int(
        subprocess.run(
            [sys.executable, "-c", _MEMORY, kind, whose, str(threads)], capture_output=True, text=True, check=True
        ).stdout
    )


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    threads = max(options.threads)
    speed, before = bandwidth(threads), isa()
    weights = np.full(ROWS, 1 / ROWS)
    for kind in options.kinds.split(","):
        student, teacher = logits(kind)
        out = np.empty_like(student)
        timers = {}
        for level in options.levels:
            for count in options.threads:
                call = partial(row_divergence, student, teacher, kind, weights=weights, out=out, threads=count)
                set_isa(level)
                check(kind, call(), student, teacher)
                timers[f"{level} {count}"] = Timer(call, prepare=partial(set_isa, level))
        torch = torch_call(kind, student, teacher, threads)
        if torch:
            timers["torch"] = Timer(torch)
        else:
            report.skip("torch", "it is not installed")
        seconds = measure(timers, options.repetitions)
        moved = student.nbytes * (2 if teacher is None else 3)
        for name, taken in seconds.items():
            level, _, count = name.partition(" ")
            cells = {"kind": kind, "level": level, "threads": count or threads, "milliseconds": taken * 1e3}
            cells["of bandwidth"] = f"{moved / taken.median / speed:.0%}"
            if torch:
                cells["x torch"] = seconds["torch"] / taken
            if name == "torch" or name == f"{options.levels[-1]} {threads}":
                cells["MB beside"] = memory(kind, "torch" if name == "torch" else "ours", threads) / 1e6
            report.row(**cells)
    set_isa(before)
    report.note(
        f"Of bandwidth: inputs read once and the gradient written once, at {speed * 1e-9:.1f} GB/s of {threads} threads.  MB beside: peak memory "
        f"beyond inputs and gradient; two rows a thread are {2 * threads * VOCAB * 4 / 1e6:.1f} MB.  Liger publishes up to 80 % less memory for its "
        "fused losses on a GPU than torch takes."
    )
    return report
