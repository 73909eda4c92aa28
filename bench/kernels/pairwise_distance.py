"""Distances between all points of two sets: laws over a vocabulary, and points of few coordinates; beside torch.cdist where installed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import pairwise_distance

CASES = {
    "l1, 64 x 64 of 32000": ("l1", 64, 64, 32000),
    "sqeuclidean, 64 x 64 of 32000": ("sqeuclidean", 64, 64, 32000),
    "sqeuclidean, 1024 x 1024 of 16": ("sqeuclidean", 1024, 1024, 16),
    "l1, 1024 x 1024 of 16": ("l1", 1024, 1024, 16),
}


def with_numpy(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """What one would write by hand, a point at a time, so that the differences fit in a cache."""
    size = np.abs if metric == "l1" else np.square
    return np.stack([size(point - y).sum(axis=1) for point in x])


def with_torch(x: np.ndarray, y: np.ndarray, metric: str, threads: int) -> dict[str, Callable[[], object]]:
    """torch.cdist, by its name; nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    left, right = torch.from_numpy(x), torch.from_numpy(y)
    if metric == "l1":
        return {"torch": lambda: torch.cdist(left, right, p=1)}
    return {"torch": lambda: torch.cdist(left, right) ** 2}


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    random = np.random.default_rng(0)
    for case, (metric, n, m, d) in CASES.items():
        x, y = (random.standard_normal((count, d)).astype(np.float32) for count in (n, m))
        expected = np.stack([with_numpy(x[i : i + 1].astype(np.float64), y, metric)[0] for i in range(n)])

        def check(found: np.ndarray, expected: np.ndarray = expected) -> None:
            np.testing.assert_allclose(found, expected, rtol=2.0**-18)

        arguments = x, y, metric
        compare(
            report, options, case, lambda threads, given=arguments: pairwise_distance(*given, threads=threads), check,
            lambda given=arguments: with_numpy(*given), operations=(2 if metric == "l1" else 3) * n * m * d,
            peers=with_torch(*arguments, max(options.threads)),
        )  # fmt: skip
    return report
