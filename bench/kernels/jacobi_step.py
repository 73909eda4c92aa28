"""The next Jacobi iterate and its final prefix: from drawn tokens, and from 16 rows of 49152 logits."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import JacobiStep, jacobi_step
from fastdistill.reference.fixed_point.jacobi_step import jacobi_step as reference_jacobi_step

VOCAB = 49152
SHAPES = [(1, 16), (64, 64), (1, 8192)]


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    generator = np.random.default_rng(0)
    cases = {}
    for shape in SHAPES:
        iterate = generator.integers(0, VOCAB, shape).astype(np.int32)
        drawn = np.roll(iterate, -1, axis=-1)
        drawn[:, -2:] += 1  # all but the last position has settled
        cases[f"tokens {shape[0]} x {shape[1]}"] = iterate, drawn
    iterate = generator.integers(0, VOCAB, 16).astype(np.int32)
    cases["logits, greedy, 16 rows"] = iterate, generator.normal(0, 3, (16, VOCAB)).astype(np.float32)
    for case, (iterate, target) in cases.items():
        expected = reference_jacobi_step(iterate, target)

        def check(found: JacobiStep, expected: tuple[np.ndarray, ...] = expected) -> None:
            for got, want in zip(found, expected, strict=True):
                np.testing.assert_array_equal(got, want)

        compare(
            report, options, case, lambda threads, pair=(iterate, target): jacobi_step(*pair), check,
            lambda pair=(iterate, target): reference_jacobi_step(*pair), threaded=False,
        )  # fmt: skip
    return report
