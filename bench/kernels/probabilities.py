"""The law of each of 8 rows of 49152 logits, for several sets of processors."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.kernels.sample import ROWS, SAMPLERS, VOCAB
from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import Sampler, probabilities, sample_workspace
from fastdistill.reference.sample.probabilities import probabilities as reference_probabilities


def with_numpy(logits: np.ndarray, sampler: Sampler) -> np.ndarray:
    """What one would write by hand, in float32: sort, cut, normalise."""
    law = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(sampler.temperature))
    for p in law if (sampler.top_k, sampler.top_p, sampler.min_p) != (0, 1, 0) else ():
        order = np.argsort(-p)
        kept = order[: sampler.top_k or None]
        if sampler.top_p < 1:
            kept = kept[: np.searchsorted(p[kept].cumsum(), sampler.top_p * p[kept].sum()) + 1]
        left = p[kept] * (p[kept] >= sampler.min_p * p[order[0]])
        p[:] = 0
        p[kept] = left
    return law / law.sum(axis=1, keepdims=True)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    logits = np.random.default_rng(0).normal(0, 3, (ROWS, VOCAB)).astype(np.float32)
    out = np.empty_like(logits)
    workspaces = {threads: sample_workspace(ROWS, VOCAB, threads) for threads in options.threads}
    for name, sampler in SAMPLERS.items():
        expected = reference_probabilities(logits, sampler)

        def kernel(threads: int, sampler: Sampler = sampler) -> np.ndarray:
            return probabilities(logits, sampler, threads=threads, workspace=workspaces[threads], out=out)

        def check(found: np.ndarray, expected: np.ndarray = expected) -> None:
            np.testing.assert_allclose(found, expected, rtol=2.0**-20, atol=2.0**-125)

        compare(report, options, name, kernel, check, lambda sampler=sampler: with_numpy(logits, sampler))
    return report
