"""A step of gradient descent with momentum over 16 million values, as a share of the memory's bandwidth, beside torch's."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.peers import missing
from bench.lib.report import Report
from fastdistill.kernels import sgd_step
from fastdistill.reference.train.sgd_step import sgd_step as reference_sgd_step

COUNT = 16 << 20
SETTINGS = {"learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 0.01}


def with_numpy(value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray) -> None:
    """What one would write by hand, in float32 and in place."""
    velocity *= np.float32(0.9)
    velocity += gradient + np.float32(0.01) * value
    value -= np.float32(1e-3) * velocity


def torch_call(arrays: list[np.ndarray], threads: int, **how: bool) -> Callable[[], None]:
    import torch

    torch.set_num_threads(threads)
    value = torch.nn.Parameter(torch.from_numpy(arrays[0].copy()))
    value.grad = torch.from_numpy(arrays[1].copy())
    return torch.optim.SGD([value], lr=1e-3, momentum=0.9, weight_decay=0.01, **how).step


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    arrays = list(np.random.default_rng(0).standard_normal((3, COUNT), np.float32))
    few = [array[:4099].copy() for array in arrays]
    expected = reference_sgd_step(*few, **SETTINGS)

    def check(_: object) -> None:
        got = [array.copy() for array in few]
        sgd_step(*got, **SETTINGS, threads=2)
        for found, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)

    threads, absent = max(options.threads), missing("torch")
    if absent:
        report.skip("torch", absent)
    peers = {} if absent else {
        "torch": torch_call(arrays, threads),
        "torch fused": torch_call(arrays, threads, fused=True),
    }  # fmt: skip
    ours = [array.copy() for array in arrays]
    compare(
        report, options, f"{COUNT >> 20} Mi", lambda threads: sgd_step(*ours, **SETTINGS, threads=threads), check, lambda: with_numpy(*arrays),
        bandwidth=bandwidth(threads), moved=20 * COUNT, peers=peers,
    )  # fmt: skip
    return report
