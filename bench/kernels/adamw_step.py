"""A step of AdamW over 16 million values, as a share of the memory's bandwidth, beside torch's fused one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.peers import missing
from bench.lib.report import Report
from fastdistill.kernels import adamw_step
from fastdistill.reference.train.adamw_step import adamw_step as reference_adamw_step

COUNT = 16 << 20
SETTINGS = {"learning_rate": 1e-3, "weight_decay": 0.01}


def with_numpy(value: np.ndarray, gradient: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """What one would write by hand, in float32 and in place."""
    value *= 1 - 1e-3 * 0.01
    first += np.float32(0.1) * (gradient - first)
    second += np.float32(0.001) * (gradient * gradient - second)
    value -= np.float32(1e-3 / 0.271) * first / (np.sqrt(second) / np.float32(0.003**0.5) + np.float32(1e-8))


def torch_call(arrays: list[np.ndarray], threads: int, **how: bool) -> Callable[[], None]:
    import torch

    torch.set_num_threads(threads)
    value = torch.nn.Parameter(torch.from_numpy(arrays[0].copy()))
    value.grad = torch.from_numpy(arrays[1].copy())
    return torch.optim.AdamW([value], lr=1e-3, weight_decay=0.01, **how).step


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    arrays = list(np.random.default_rng(0).standard_normal((4, COUNT), np.float32))
    np.square(arrays[3], out=arrays[3])
    few = [array[:4099].copy() for array in arrays]
    expected = reference_adamw_step(*few, step=3, **SETTINGS)

    def check(_: object) -> None:
        got = [array.copy() for array in few]
        adamw_step(*got, step=3, **SETTINGS, threads=2)
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
    for case, zero in (("", False), (", the gradient zeroed", True)):
        compare(
            report, options, f"{COUNT >> 20} Mi{case}",
            lambda threads, zero=zero: adamw_step(*ours, step=3, **SETTINGS, zero_gradient=zero, threads=threads), check,
            lambda: with_numpy(*arrays), bandwidth=bandwidth(threads), moved=(28 + 4 * zero) * COUNT, peers=peers,
        )  # fmt: skip
    return report
