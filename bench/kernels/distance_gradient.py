"""The gradient of a weighted sum of distances: laws over a vocabulary, and points of few coordinates."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.kernels.pairwise_distance import CASES
from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import distance_gradient


def with_numpy(weights: np.ndarray, x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """What one would write by hand, a point at a time."""
    slopes = np.sign if metric == "l1" else lambda apart: 2 * apart
    return np.stack([mine @ slopes(point - y) for mine, point in zip(weights, x, strict=True)])


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    random = np.random.default_rng(0)
    for case, (metric, n, m, d) in CASES.items():
        weights, x, y = (random.standard_normal(shape).astype(np.float32) for shape in ((n, m), (n, d), (m, d)))
        exact = (weights.astype(np.float64), x.astype(np.float64), y.astype(np.float64))
        expected = with_numpy(*exact, metric)

        def check(found: np.ndarray, expected: np.ndarray = expected, weights: np.ndarray = weights) -> None:
            np.testing.assert_allclose(found, expected, rtol=0, atol=2.0**-18 * 20 * np.abs(weights).sum(axis=1).max())

        arguments = weights, x, y, metric
        compare(
            report, options, case, lambda threads, given=arguments: distance_gradient(*given, threads=threads), check,
            lambda given=arguments: with_numpy(*given), operations=3 * n * m * d,
        )  # fmt: skip
    return report
