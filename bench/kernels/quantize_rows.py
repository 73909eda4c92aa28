"""Activations to int8 blocks: 1 and 64 rows of 576 and 1536, one thread."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import quantize_rows
from fastdistill.reference.forward.quantize_rows import quantize_rows as reference_quantize_rows


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    for rows, width in ((1, 576), (1, 1536), (64, 576), (64, 1536)):
        x = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
        expected = reference_quantize_rows(x)

        def check(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...] = expected) -> None:
            for got, want in zip(found, expected, strict=True):
                np.testing.assert_array_equal(got, want)

        compare(
            report, options, f"{rows} x {width}", lambda _, x=x: quantize_rows(x), check, lambda x=x: reference_quantize_rows(x),
            threaded=False, operations=2 * x.size,
        )  # fmt: skip
    return report
