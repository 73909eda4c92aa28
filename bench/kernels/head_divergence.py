"""The forward KL of a head's logits and its gradients by hidden states and head, 512 rows of 49152 tokens: beside torch's autograd."""

from __future__ import annotations

import argparse
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.lib.report import Report
from bench.lib.timing import Timer, measure
from fastdistill.kernels import HeadDivergence, head_divergence, isa, set_isa
from fastdistill.reference.distill.head_divergence import head_divergence as reference_head_divergence

ROWS, VOCAB = 512, 49152
PRODUCTS = {"forward_kl": 4, "reverse_kl": 5}  # of a head and rows: logits twice or three times, two gradients
_MEMORY = """
import sys
from bench.kernels.head_divergence import given, torch_call
from fastdistill.kernels import head_divergence
width, whose, threads, vocab = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def kilobytes(line):
    return next(int(words.split()[1]) for words in open("/proc/self/status") if words.startswith(line))
hidden, head, teacher = given(width, 512, vocab)
few = given(width, 8, 512)
call = torch_call if whose == "torch" else lambda *arrays: lambda: head_divergence(arrays[0], arrays[1], teacher=arrays[2], threads=threads)
call(*few, threads)() if whose == "torch" else call(*few)()
run = call(hidden, head, teacher, threads) if whose == "torch" else call(hidden, head, teacher)
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
kept = run()
print((kilobytes("VmHWM") - before) * 1024 - hidden.nbytes - head.nbytes)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--widths", default="64,576", metavar="N,...", help="of hidden states (default: 64,576)")
    parser.set_defaults(repetitions=5)


def given(width: int, rows: int = ROWS, vocab: int = VOCAB) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    hidden, head, teacher = (
        random.standard_normal(shape, np.float32) for shape in ((rows, width), (vocab, width), (rows, vocab))
    )
    head *= np.float32(3 / width**0.5)
    teacher *= np.float32(3)
    return hidden, head, teacher


def torch_call(
    hidden: np.ndarray, head: np.ndarray, teacher: np.ndarray, threads: int, kind: str = "forward_kl"
) -> Callable[[], Any] | None:
    """Value and gradients of the same formula under autograd; None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    from bench.lib.torch_objectives import divergence

    torch.set_num_threads(threads)
    arrays = [torch.from_numpy(each) for each in (hidden, head, teacher)]

    def call() -> Any:
        x, w = (each.detach().requires_grad_() for each in arrays[:2])
        divergence(kind, x @ w.T, arrays[2]).backward()
        return x.grad, w.grad

    return call


def check(kind: str, found: HeadDivergence, arrays: tuple[np.ndarray, ...]) -> None:
    """Two rows' values, and the gradients of a problem of two rows."""
    hidden, head, teacher = (arrays[0][:2].copy(), arrays[1], arrays[2][:2].copy())
    want = reference_head_divergence(hidden, head, kind, teacher=teacher)
    few = head_divergence(hidden, head, kind, teacher=teacher)
    np.testing.assert_allclose(found.values[:2], want[0], rtol=2e-5)
    np.testing.assert_allclose(few.hidden, want[2], atol=1e-4)
    np.testing.assert_allclose(few.head, want[3], atol=1e-4)


def memory(width: int, whose: str, threads: int, vocab: int) -> int:
    command = [sys.executable, "-c", _MEMORY, str(width), whose, str(threads), str(vocab)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    threads, before = max(options.threads), isa()
    weights = np.full(ROWS, 1 / ROWS)
    for width in map(int, options.widths.split(",")):
        arrays = hidden, head, teacher = given(width)
        for kind, products in PRODUCTS.items():
            timers = {"product": Timer(lambda hidden=hidden, head=head: hidden @ head.T)}
            for level in options.levels if kind == "forward_kl" else options.levels[-1:]:
                for count in options.threads:
                    call = partial(head_divergence, hidden, head, kind, teacher=teacher, weights=weights, threads=count)
                    set_isa(level)
                    check(kind, call(), arrays)
                    timers[f"{level} {count}"] = Timer(call, prepare=partial(set_isa, level))
            torch = torch_call(*arrays, threads, kind)
            if torch:
                timers["torch"] = Timer(torch)
            else:
                report.skip("torch", "it is not installed")
            seconds = measure(timers, options.repetitions)
            product = seconds.pop("product")
            for name, taken in seconds.items():
                level, _, count = name.partition(" ")
                cells: dict[str, Any] = {
                    "kind": kind,
                    "width": width,
                    "level": level,
                    "threads": count or threads,
                    "seconds": taken,
                }
                if name != "torch":
                    cells["of products"] = f"{(product * products).median / taken.median:.0%}"
                if torch:
                    cells["x torch"] = seconds["torch"] / taken
                if kind == "forward_kl" and name in ("torch", f"{options.levels[-1]} {threads}"):
                    cells["MB beside"] = memory(width, "torch" if name == "torch" else "ours", threads, VOCAB) / 1e6

                report.row(**cells)
    set_isa(before)
    beside = memory(576, "ours", threads, 152_000) / 1e6
    report.note(
        f"Of products: the time of {PRODUCTS['forward_kl']} (forward KL) or {PRODUCTS['reverse_kl']} products hidden head^T by NumPy's BLAS, on all cores, "
        "over ours; autograd makes 3 and keeps the logits.  MB beside: peak memory beyond inputs and gradients.  With 152,000 tokens "
        f"and width 576: {beside:.1f} MB; two rows a thread are {2 * threads * 152_000 * 4 / 1e6:.1f} MB."
    )
    return report
