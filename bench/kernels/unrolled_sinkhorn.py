"""The cost of a plan after 20 Sinkhorn iterations and its gradient: of 64 x 64, and of 256 problems of 16 x 16; beside torch's autograd."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import Unrolled, unrolled_sinkhorn
from fastdistill.reference.transport.unrolled_sinkhorn import unrolled_sinkhorn as reference_unrolled_sinkhorn

EPSILON, ITERATIONS = 0.1, 20
SHAPES = [(1, 64, 64), (1, 256, 256), (256, 16, 16)]


def with_torch(cost: np.ndarray, threads: int) -> dict[str, Callable[[], object]]:
    """The plain iteration under autograd, in float64, by its name; nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    given = torch.from_numpy(cost).requires_grad_()

    def call() -> object:
        plan = torch.exp(-given / EPSILON)
        for _ in range(ITERATIONS):
            plan = plan / plan.sum(dim=-1, keepdim=True)
            plan = plan / plan.sum(dim=-2, keepdim=True)
        return torch.autograd.grad((plan * given).sum(), given)

    return {"torch": call}


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    for batch, n, m in SHAPES:
        cost = np.random.default_rng(0).uniform(0, 2, (batch, n, m))
        expected = reference_unrolled_sinkhorn(cost, EPSILON, ITERATIONS)

        def check(found: Unrolled, expected: tuple[np.ndarray, ...] = expected) -> None:
            for got, want in zip(found, expected, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)

        compare(
            report, options, f"{batch} of {n} x {m}",
            lambda threads, cost=cost: unrolled_sinkhorn(cost, EPSILON, ITERATIONS, threads=threads), check,
            lambda cost=cost: reference_unrolled_sinkhorn(cost, EPSILON, ITERATIONS), peers=with_torch(cost, max(options.threads)),
        )  # fmt: skip
    return report
