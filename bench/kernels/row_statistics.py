"""Statistics of 64 rows of 32000 logits, as a share of the memory's bandwidth."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.report import Report
from fastdistill.kernels import RowStatistics, row_statistics
from fastdistill.reference.forward.row_statistics import row_statistics as reference_row_statistics

ROWS, VOCAB = 64, 32000


def with_numpy(logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """What one would write by hand, in float32."""
    argmax = logits.argmax(axis=1)
    second, top = np.partition(logits, -2, axis=1)[:, -2:].T
    below = logits - top[:, None]
    mass = np.exp(below)
    total = mass.sum(axis=1)
    return argmax, top, second, top + np.log(total), np.log(total) - (mass * below).sum(axis=1) / total


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    logits = np.random.default_rng(0).normal(0, 3, (ROWS, VOCAB)).astype(np.float32)
    expected = reference_row_statistics(logits)

    def check(found: RowStatistics) -> None:
        for got, want in zip(found[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(got, want.astype(got.dtype))
        # Two sums of VOCAB / 16 + 12 roundings; the entropy's terms reach log VOCAB.
        roundings = (VOCAB / 16 + 12) * 2.0**-24
        np.testing.assert_allclose(found.log_sum_exp, expected[3], rtol=2.0**-23, atol=roundings)
        np.testing.assert_allclose(found.entropy, expected[4], rtol=0, atol=roundings * (5 + 2 * np.log(VOCAB)))

    compare(
        report, options, f"{ROWS} x {VOCAB}", lambda threads: row_statistics(logits, threads), check, lambda: with_numpy(logits),
        bandwidth=bandwidth(max(options.threads)), moved=logits.nbytes,
    )  # fmt: skip
    return report
