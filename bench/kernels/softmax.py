"""The softmax of 64 rows of 32000 logits, as a share of the memory's bandwidth."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.report import Report
from fastdistill.kernels import softmax
from fastdistill.reference.transport.softmax import softmax as reference_softmax

ROWS, VOCAB = 64, 32000


def with_numpy(logits: np.ndarray) -> np.ndarray:
    """What one would write by hand, in float32."""
    terms = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(2))
    return terms / terms.sum(axis=1, keepdims=True)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    logits = np.random.default_rng(0).normal(0, 3, (ROWS, VOCAB)).astype(np.float32)
    expected = reference_softmax(logits, 2.0)

    def check(found: np.ndarray) -> None:
        np.testing.assert_allclose(found, expected, rtol=2.0**-18)

    compare(
        report, options, f"{ROWS} x {VOCAB}", lambda threads: softmax(logits, 2.0, threads=threads), check, lambda: with_numpy(logits),
        bandwidth=bandwidth(max(options.threads)), moved=2 * logits.nbytes,
    )  # fmt: skip
    return report
