"""The sum of the squares of 16 million floats in doubles, as a share of the memory's bandwidth."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.peers import missing
from bench.lib.report import Report
from fastdistill.kernels import sum_of_squares
from fastdistill.reference.train.sum_of_squares import sum_of_squares as reference_sum_of_squares

COUNT = 16 << 20


def torch_call(x: np.ndarray, threads: int) -> Callable[[], object]:
    """In floats, as torch's clipping has it."""
    import torch

    torch.set_num_threads(threads)
    given = torch.from_numpy(x)
    return lambda: torch.linalg.vector_norm(given)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    x = np.random.default_rng(0).standard_normal(COUNT, np.float32)
    expected = reference_sum_of_squares(x)

    def check(found: float) -> None:
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    threads, absent = max(options.threads), missing("torch")
    if absent:
        report.skip("torch", absent)
    compare(
        report, options, f"{COUNT >> 20} Mi", lambda threads: sum_of_squares(x, threads=threads), check, lambda: np.dot(x, x),
        bandwidth=bandwidth(threads), moved=x.nbytes, peers={} if absent else {"torch": torch_call(x, threads)},
    )  # fmt: skip
    return report
