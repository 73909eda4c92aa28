"""The 64 largest of 49152 logits, 512 rows, in order, as a share of the memory's bandwidth."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.peers import missing
from bench.lib.report import Report
from fastdistill.kernels import top_k
from fastdistill.reference.distill.top_k import top_k as reference_top_k

ROWS, VOCAB, K = 512, 49152, 64


def with_numpy(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one would write by hand: the best k in any order, then these sorted."""
    tokens = np.argpartition(logits, -K, axis=1)[:, -K:]
    values = np.take_along_axis(logits, tokens, axis=1)
    order = np.argsort(-values, axis=1)
    return np.take_along_axis(tokens, order, axis=1), np.take_along_axis(values, order, axis=1)


def torch_call(logits: np.ndarray, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    given = torch.from_numpy(logits)
    return lambda: torch.topk(given, K, dim=-1)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    logits = np.random.default_rng(0).standard_normal((ROWS, VOCAB), np.float32) * 3
    tokens, values = reference_top_k(logits, K)

    def check(found: tuple[np.ndarray, np.ndarray]) -> None:
        np.testing.assert_array_equal(found[0], tokens)
        np.testing.assert_array_equal(found[1], values)

    threads, absent = max(options.threads), missing("torch")
    if absent:
        report.skip("torch", absent)
    compare(
        report, options, f"{ROWS} x {VOCAB}, k = {K}", lambda threads: top_k(logits, K, threads=threads), check, lambda: with_numpy(logits),
        bandwidth=bandwidth(threads), moved=logits.nbytes, peers={} if absent else {"torch": torch_call(logits, threads)},
    )  # fmt: skip
    return report
