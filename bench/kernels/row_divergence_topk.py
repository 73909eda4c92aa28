"""Divergences from a teacher that is known at 64 tokens of each row, 512 rows of 49152 logits in float32: time and memory beside torch's autograd."""

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
from fastdistill.kernels import RowDivergence, row_divergence_topk, top_k
from fastdistill.reference.distill.row_divergence import log_softmax
from fastdistill.reference.distill.row_divergence_topk import row_divergence_topk as reference_row_divergence_topk

K = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kinds", default="forward_kl,reverse_kl,jsd", metavar="KIND,...", help="default: forward_kl,reverse_kl,jsd"
    )
    parser.set_defaults(repetitions=5)


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of the student; the teacher's best tokens and their log probabilities."""
    random = np.random.default_rng(0)
    student, teacher = random_logits(random), random_logits(random)
    tokens, _ = top_k(teacher, K)
    return student, tokens, np.take_along_axis(log_softmax(teacher), tokens, axis=1).astype(np.float32)


def torch_call(
    kind: str, tail: str, student: np.ndarray, tokens: np.ndarray, log_probs: np.ndarray, threads: int
) -> Callable[[], Any]:
    """Value and gradient of the same formula under autograd."""
    import torch

    from bench.lib.torch_objectives import topk_divergence

    ids, known = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(log_probs)
    return divergences.autograd(
        lambda leaf: topk_divergence(kind, leaf, ids, known, parameter_of(kind), tail=tail), student, threads
    )


def memory_calls(kind: str, tail: str, whose: str, threads: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    given = inputs()
    few = tuple(each[:2] for each in given)
    if whose == "torch":
        return torch_call(kind, tail, *few, int(threads)), torch_call(kind, tail, *given, int(threads))
    out = np.zeros_like(given[0])
    return (
        partial(row_divergence_topk, *few, kind, tail=tail, threads=int(threads)),
        partial(row_divergence_topk, *given, kind, tail=tail, out=out, threads=int(threads)),
    )


def check(kind: str, tail: str, given: tuple[np.ndarray, ...], found: RowDivergence) -> None:
    few = [each[:CHECKED] for each in given]
    values, _, gradient = reference_row_divergence_topk(*few, kind, parameter_of(kind), tail=tail)
    # As in row_divergence.
    np.testing.assert_allclose(found.values[:CHECKED], values, rtol=2e-5)
    np.testing.assert_allclose(found.gradient[:CHECKED] * len(given[0]), gradient, atol=2e-4)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    threads, absent = max(options.threads), missing("torch")
    given = inputs()
    options_of_call: dict[str, Any] = {
        "weights": np.full(len(given[0]), 1 / len(given[0])), "out": np.empty_like(given[0]),
    }  # fmt: skip
    for kind in options.kinds.split(","):
        for tail in ("bucket", "drop"):
            case = Case(
                {"kind": kind, "tail": tail},
                lambda count, kind=kind, tail=tail: row_divergence_topk(
                    *given, kind, tail=tail, **options_of_call, threads=count
                ),
                partial(check, kind, tail, given),
                None if absent else torch_call(kind, tail, *given, threads),
                2 * given[0].nbytes,
                lambda whose, kind=kind, tail=tail: memory_beside(__name__, kind, tail, whose, threads),
            )
            divergences.time_case(report, options, case)
    if absent:
        report.skip("torch", absent)
    divergences.note(report, threads, "the student")
    return report
