"""The best nodes of pools, as one tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.verify.build_tree import build_tree as reference_build_tree
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same


def cases(draw: Choices) -> Case:
    """Pools whose scores fall along paths, or do not; few different scores, so that most of them tie, zeros of both signs."""
    n, random = draw.choice([0, 1, 2, 10, 100, 300]), draw.generator()
    parents = (random.integers(0, np.arange(n) + 1) - 1).astype(np.int32)
    steps = draw.choice([[0.0], [0.0, -0.0], [0.0, -1.0], [0.0, -1.0, -1e-30, -np.inf], [0.0, -1.0, 0.5]])
    scores = random.choice(np.array(steps, np.float32), n) if draw.boolean() else -random.exponential(1, n)
    scores = scores.astype(np.float32)
    if draw.boolean():
        for node, parent in enumerate(parents):
            scores[node] += scores[parent] if parent >= 0 else 0
    return {"parents": parents, "scores": scores, "budget": draw.choice([1, 2, 5, 60, 1000])}


def check(case: Case, function: Callable[..., Any] = kernels.build_tree) -> Any:
    """Equal nodes and parents."""
    got = function(**case)
    for name, found, want in zip(("nodes", "parents"), got, reference_build_tree(**case), strict=True):
        same(name, found, want, np.int32)
    return got
