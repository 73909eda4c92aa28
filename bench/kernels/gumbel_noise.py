"""Gumbel noise for 8 positions over a vocabulary of 49152, one thread."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import gumbel_noise
from fastdistill.reference.sample.gumbel_noise import gumbel_noise as reference_gumbel_noise

ROWS, VOCAB = 8, 49152


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    positions = np.arange(ROWS, dtype=np.int32)
    expected = reference_gumbel_noise(positions, VOCAB, seed=1)

    def check(found: np.ndarray) -> None:
        # The bound of tests/kernels/sample/test_gumbel_noise.py: v rounds, then the two logarithms do.
        assert (np.abs(found - expected) <= 2.0**-21 + 2.0**-22 * np.abs(expected)).all(), "too far from the reference"

    generator = np.random.default_rng(1)
    compare(
        report, options, f"{ROWS} x {VOCAB}", lambda _: gumbel_noise(positions, VOCAB, seed=1), check,
        lambda: generator.gumbel(size=(ROWS, VOCAB)), threaded=False,
    )  # fmt: skip
    return report
