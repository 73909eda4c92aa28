"""The best 10 continuations of a frontier of 8 nodes, 49152 tokens each."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.report import Report
from fastdistill.kernels import Expansion, expand_tree
from fastdistill.reference.verify.expand_tree import expand_tree as reference_expand_tree

FRONTIER, VOCAB, COUNT = 8, 49152, 10


def with_numpy(logits: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """What one would write by hand, in float32."""
    top = logits.max(axis=1, keepdims=True)
    below = logits - top
    total = (scores[:, None] + below - np.log(np.exp(below).sum(axis=1, keepdims=True))).ravel()
    best = np.argpartition(-total, COUNT)[:COUNT]
    best = best[np.argsort(-total[best])]
    rows, tokens = np.divmod(best, VOCAB)
    return tokens, rows, total[best]


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (FRONTIER, VOCAB)).astype(np.float32)
    scores = -generator.exponential(2, FRONTIER).astype(np.float32)
    expected = reference_expand_tree(logits, scores, COUNT)

    def check(found: Expansion) -> None:
        np.testing.assert_array_equal(found[:2], expected[:2])
        # log sum exp rounds VOCAB / 16 + 12 times; logits and scores stay below 32.
        np.testing.assert_allclose(found.scores, expected[2], rtol=0, atol=(VOCAB / 16 + 12 + 3 * 32) * 2.0**-24)

    compare(
        report, options, f"{FRONTIER} x {VOCAB}", lambda threads: expand_tree(logits, scores, COUNT, threads), check,
        lambda: with_numpy(logits, scores), bandwidth=bandwidth(max(options.threads)), moved=logits.nbytes,
    )  # fmt: skip
    return report
