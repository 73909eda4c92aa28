"""How many leading positions of an iterate are final: a decoder's one, a batch, and a long one."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import fixed_point_prefix
from fastdistill.reference.fixed_point.fixed_point_prefix import fixed_point_prefix as reference_fixed_point_prefix

SHAPES = [(1, 16), (64, 64), (1, 8192)]


def with_numpy(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """What one would write by hand: the first that differs, if there is one."""
    differs = previous != current
    return np.where(differs.any(axis=-1), differs.argmax(axis=-1) + 1, current.shape[-1])


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    for shape in SHAPES:
        previous = np.random.default_rng(0).integers(0, 49152, shape).astype(np.int32)
        current = previous.copy()
        current[:, -1] += 1  # everything has to be read
        expected = reference_fixed_point_prefix(previous, current)

        def check(found: np.ndarray, expected: np.ndarray = expected) -> None:
            np.testing.assert_array_equal(found, expected)

        compare(
            report, options, f"{shape[0]} x {shape[1]}",
            lambda threads, pair=(previous, current): fixed_point_prefix(*pair), check,
            lambda pair=(previous, current): with_numpy(*pair), threaded=False,
        )  # fmt: skip
    return report
