"""Philox4x32-10: words of 65536 counters (1 MB), one thread."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import philox
from fastdistill.reference.sample.philox import philox as reference_philox

SIZE = 1 << 16


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    random = np.random.default_rng(0)
    counter, key = random.integers(0, 2**32, (SIZE, 4), np.uint32), random.integers(0, 2**32, 2, np.uint32)
    expected = reference_philox(counter, key)
    generator = np.random.Philox(key=1)  # 4x64: two of its blocks are four words of ours
    compare(
        report, options, f"{SIZE} blocks", lambda _: philox(counter, key), lambda found: np.testing.assert_array_equal(found, expected),
        lambda: generator.random_raw(2 * SIZE), threaded=False,
    )  # fmt: skip
    report.note("NumPy's own Philox is 4x64-10, timed for as many bits; it makes its counters itself")
    return report
