"""The masked positions that a step commits: blocks of 32, alone and 64 at a time, and a whole answer of 1024."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.lib.levels import compare
from bench.lib.peers import missing
from bench.lib.report import Report
from bench.lib.timing import Timer, measure
from fastdistill.kernels import RowStatistics, Unmasked, UnmaskRule, row_statistics, unmask_select
from fastdistill.reference.unmask.unmask_select import unmask_select as reference_unmask_select

VOCAB = 64
SHAPES = [(32,), (64, 32), (1024,)]
QUOTA = 4
RULES: dict[str, tuple[UnmaskRule, int | None]] = {
    f"quota {QUOTA}": (UnmaskRule(), QUOTA),
    "threshold 0.9": (UnmaskRule(threshold=0.9), None),
    "factor 1": (UnmaskRule(factor=1.0), None),
    "entropy budget 1": (UnmaskRule("entropy", budget=1.0), None),
}


def step(shape: tuple[int, ...]) -> tuple[RowStatistics, np.ndarray]:
    """Statistics of logits from nearly flat to nearly certain; three positions in four are masked."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1, (*shape, VOCAB)) * generator.uniform(0, 8, (*shape, 1))
    return row_statistics(logits.astype(np.float32)), generator.random(shape) < 0.75


def by_topk(statistics: RowStatistics, masked: np.ndarray) -> Callable[[], Any]:
    """How PyTorch decoders take the most confident, over tensors that are there already."""
    import torch

    torch.set_num_threads(1)
    top, total, eligible = (torch.from_numpy(array) for array in (statistics.top, statistics.log_sum_exp, masked))

    def call() -> Any:
        confidence = torch.where(eligible, top - total, -torch.inf)
        chosen = torch.zeros_like(eligible)
        return chosen.scatter_(-1, torch.topk(confidence, QUOTA, dim=-1).indices, True)

    return call


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    for shape in SHAPES:
        statistics, masked = step(shape)
        for name, (rule, quota) in RULES.items():
            expected = reference_unmask_select(statistics, masked, rule, quota=quota)

            def check(found: Unmasked, expected: tuple[np.ndarray, ...] = expected) -> None:
                for got, want in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(got, want)

            ours = partial(unmask_select, statistics, masked, rule, quota=quota)
            compare(
                report, options, f"{' x '.join(map(str, shape))}, {name}", lambda threads, ours=ours: ours(threads=threads), check,
                partial(reference_unmask_select, statistics, masked, rule, quota=quota), threaded=len(shape) > 1,
            )  # fmt: skip
    report.table(f"beside torch.topk, quota {QUOTA}, one thread")
    if reason := missing("torch"):
        report.skip("torch", reason)
        return report
    for shape in SHAPES:
        statistics, masked = step(shape)
        ours, theirs = (
            partial(unmask_select, statistics, masked, UnmaskRule(), quota=QUOTA),
            by_topk(statistics, masked),
        )
        np.testing.assert_array_equal(ours().chosen, theirs().numpy())
        seconds = measure({"ours": Timer(ours), "torch": Timer(theirs)}, options.repetitions)
        for name, taken in seconds.items():
            case = " x ".join(map(str, shape))
            report.row(case=case, by=name, microseconds=taken * 1e6, **{"x torch": seconds["torch"] / taken})
    return report
