"""Divergences with their gradient, 512 rows of 49152 logits in float32: time beside torch's autograd, memory beyond inputs and outputs."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.lib import divergences
from bench.lib.divergences import CHECKED, Case, parameter_of, random_logits
from bench.lib.memory import memory_beside
from bench.lib.peers import missing
from bench.lib.report import Report
from fastdistill.kernels import RowDivergence, row_divergence
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.row_divergence import row_divergence as reference_row_divergence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="KIND,...", help="default: all")
    parser.set_defaults(repetitions=5)


def logits(kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    random = np.random.default_rng(0)
    return random_logits(random), None if kind == "entropy" else random_logits(random)


def torch_call(kind: str, student: np.ndarray, teacher: np.ndarray | None, threads: int) -> Callable[[], Any]:
    """Value and gradient of the same formula under autograd."""
    import torch

    from bench.lib.torch_objectives import divergence

    target = None if teacher is None else torch.from_numpy(teacher)
    return divergences.autograd(lambda leaf: divergence(kind, leaf, target, parameter_of(kind)), student, threads)


def memory_calls(kind: str, whose: str, threads: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    student, teacher = logits(kind)
    few = student[:2], None if teacher is None else teacher[:2]
    if whose == "torch":
        return torch_call(kind, *few, int(threads)), torch_call(kind, student, teacher, int(threads))
    out = np.zeros_like(student)
    return (
        partial(row_divergence, *few, kind, threads=int(threads)),
        partial(row_divergence, student, teacher, kind, out=out, threads=int(threads)),
    )


def check(kind: str, student: np.ndarray, teacher: np.ndarray | None, found: RowDivergence) -> None:
    few = None if teacher is None else teacher[:CHECKED]
    values, _, gradient = reference_row_divergence(student[:CHECKED], few, kind, parameter_of(kind))
    # Logarithms of 40 at most to 2^-24 each, and sums of 64 terms a lane.
    np.testing.assert_allclose(found.values[:CHECKED], values, rtol=2e-5)
    np.testing.assert_allclose(found.gradient[:CHECKED] * len(student), gradient, atol=2e-4)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    threads, absent = max(options.threads), missing("torch")
    for kind in options.kinds.split(","):
        student, teacher = logits(kind)
        given: dict[str, Any] = {"weights": np.full(len(student), 1 / len(student)), "out": np.empty_like(student)}
        case = Case(
            {"kind": kind},
            lambda count, kind=kind, sides=(student, teacher), given=given: row_divergence(
                *sides, kind, **given, threads=count
            ),
            partial(check, kind, student, teacher),
            None if absent else torch_call(kind, student, teacher, threads),
            student.nbytes * (2 if teacher is None else 3),
            lambda whose, kind=kind: memory_beside(__name__, kind, whose, threads),
        )
        divergences.time_case(report, options, case)
    if absent:
        report.skip("torch", absent)
    divergences.note(report, threads, "inputs")
    return report
