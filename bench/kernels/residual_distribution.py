"""What is left of one law over 32000 tokens when another is taken away: in cache, one thread.

`inside C` calls with pointers that are already made; `checked` is what `kernels.residual_distribution` takes.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import residual_distribution
from fastdistill.kernels.boundary import ffi, lib, pointer
from fastdistill.reference.verify.residual_distribution import residual_distribution as reference_residual_distribution

VOCAB = 32000


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    z = np.random.default_rng(0).normal(0, 3, (2, VOCAB))
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(np.float32)
    expected, expected_mass = reference_residual_distribution(p, q)
    r, mass = np.empty(VOCAB, np.float32), ffi.new("double[1]")
    arguments = VOCAB, 1.0, pointer(p), pointer(q), pointer(r), mass

    def inside(_: int) -> tuple[np.ndarray, float]:
        lib.fd_residual_distribution(*arguments)
        return r, mass[0]

    def check(found: tuple[np.ndarray, float]) -> None:
        np.testing.assert_allclose(found[0], expected, rtol=2.0**-23, atol=2.0**-149)
        np.testing.assert_allclose(found[1], expected_mass, rtol=2.0**-22)

    def numpy() -> tuple[np.ndarray, float]:
        left = np.maximum(p - q, 0)
        return left, left.sum(dtype=np.float64)

    ways: dict[str, Callable[[int], object]] = {
        "inside C": inside,
        "checked": lambda _: residual_distribution(p, q, out=r),
    }
    for name, kernel in ways.items():
        compare(report, options, name, kernel, check, numpy, threaded=False)
    return report
