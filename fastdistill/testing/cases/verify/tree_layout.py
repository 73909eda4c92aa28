"""Depths, ancestors, leaves and children of trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels import TreeLayout
from fastdistill.reference.verify.tree_layout import tree_layout as reference_tree_layout
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

SIZES = [1, 2, 3, 10, 63, 64, 65, 127, 128, 129, 300]  # around one and two words of ancestors


def cases(draw: Choices) -> Case:
    """Random trees, bushy or deep; chains and stars among them."""
    n, near, random = draw.choice(SIZES), draw.choice([1, 2, 10, 1000]), draw.generator()
    nodes = np.arange(n)
    parents = np.maximum(nodes - random.integers(1, near + 1, n), 0) if draw.boolean() else nodes // near
    return {"parents": np.minimum(parents, nodes - 1).astype(np.int32)}


def check(case: Case, function: Callable[..., Any] = kernels.tree_layout) -> Any:
    """All parts equal."""
    got = function(**case)
    for name, found, want in zip(TreeLayout._fields, got, reference_tree_layout(**case), strict=True):
        same(name, found, want, want.dtype)
    return got
