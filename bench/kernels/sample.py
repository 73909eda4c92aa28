"""A token of each of 8 rows of 49152 logits, for several sets of processors."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import Sampler, sample, sample_workspace
from fastdistill.reference.sample.sample import sample as reference_sample

ROWS, VOCAB = 8, 49152
SAMPLERS = {
    "temperature": Sampler(temperature=0.8),
    "top-k 40": Sampler(temperature=0.8, top_k=40),
    "top-p 0.95": Sampler(temperature=0.8, top_p=0.95),
    "min-p 0.05": Sampler(temperature=0.8, min_p=0.05),
    "k, p, min-p": Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
}


def with_numpy(logits: np.ndarray, sampler: Sampler, generator: np.random.Generator) -> list[int]:
    """What one would write by hand: sort, cut, draw."""
    tokens = []
    for row in logits:
        order = np.argsort(-row)[: sampler.top_k or None]
        p = np.exp((row[order] - row[order[0]]) / sampler.temperature)
        if sampler.top_p < 1:
            p = p[: np.searchsorted(p.cumsum(), sampler.top_p * p.sum()) + 1]
        p = p[p >= sampler.min_p * p[0]].cumsum()
        tokens.append(int(order[np.searchsorted(p, generator.random() * p[-1])]))
    return tokens


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (ROWS, VOCAB)).astype(np.float32)
    positions = np.arange(ROWS, dtype=np.int32)
    workspaces = {threads: sample_workspace(ROWS, VOCAB, threads) for threads in options.threads}
    for name, sampler in SAMPLERS.items():
        expected = reference_sample(logits, sampler, positions).tokens

        def kernel(threads: int, sampler: Sampler = sampler) -> np.ndarray:
            return sample(logits, sampler, positions, threads=threads, workspace=workspaces[threads])

        compare(
            report, options, name, kernel, lambda found, expected=expected: np.testing.assert_array_equal(found, expected),
            lambda sampler=sampler: with_numpy(logits, sampler, generator),
        )  # fmt: skip
    return report
