"""Depths, ancestors, leaves and children of a tree of 64 nodes."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import TreeLayout, tree_layout
from fastdistill.reference.verify.tree_layout import tree_layout as reference_tree_layout

NODES = 64


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    nodes = np.arange(1, NODES)
    parents = np.append(-1, np.maximum(nodes - np.random.default_rng(0).integers(1, 8, NODES - 1), 0)).astype(np.int32)
    expected = reference_tree_layout(parents)

    def check(found: TreeLayout) -> None:
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, want)

    compare(
        report, options, f"{NODES} nodes", lambda threads: tree_layout(parents), check, lambda: reference_tree_layout(parents),
        threaded=False,
    )  # fmt: skip
    return report
