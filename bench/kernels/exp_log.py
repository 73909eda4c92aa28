"""exp and log of 65536 floats (256 KB), one thread."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import exp_log
from fastdistill.reference.forward.exp_log import exp_log as reference_exp_log

SIZE = 1 << 16


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    x = np.random.default_rng(0).uniform(1e-3, 80, SIZE).astype(np.float32)
    expected = reference_exp_log(x)

    def check(found: tuple[np.ndarray, np.ndarray]) -> None:
        for got, want in zip(found, expected, strict=True):
            assert (np.abs(got - want) <= 2 * np.spacing(np.abs(want).astype(np.float32))).all(), (
                "more than 2 ulp from the reference"
            )

    compare(report, options, "exp and log", lambda _: exp_log(x), check, lambda: (np.exp(x), np.log(x)), threaded=False)
    return report
