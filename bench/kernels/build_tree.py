"""The best 60 nodes of a pool of 710: 10 candidates of the seed, then 7 levels of 10 times 10."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import BuiltTree, build_tree
from fastdistill.reference.verify.build_tree import build_tree as reference_build_tree

WIDTH, DEPTH, BUDGET = 10, 7, 60


def pool() -> tuple[np.ndarray, np.ndarray]:
    """Parents and scores as expansion leaves them: each level continues the best WIDTH nodes of the one before it."""
    generator = np.random.default_rng(0)
    parents, scores = np.full(WIDTH, -1), -generator.exponential(2, WIDTH)
    level = np.arange(WIDTH)
    for _ in range(DEPTH):
        frontier = np.repeat(level[np.argsort(-scores[level])[:WIDTH]], WIDTH)
        level = np.arange(len(parents), len(parents) + len(frontier))
        parents = np.append(parents, frontier)
        scores = np.append(scores, scores[frontier] - generator.exponential(2, len(frontier)))
    return parents.astype(np.int32), scores.astype(np.float32)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    parents, scores = pool()
    expected = reference_build_tree(parents, scores, BUDGET)

    def check(found: BuiltTree) -> None:
        np.testing.assert_array_equal(found, expected)

    compare(
        report, options, f"{BUDGET} of {len(parents)}", lambda threads: build_tree(parents, scores, BUDGET), check,
        lambda: reference_build_tree(parents, scores, BUDGET), threaded=False,
    )  # fmt: skip
    return report
