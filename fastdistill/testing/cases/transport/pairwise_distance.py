"""Distances between all points of two sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels.transport import points
from fastdistill.reference.transport.pairwise_distance import pairwise_distance as reference_pairwise_distance
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

METRICS = list(points.METRICS)
COORDINATES = [1, 2, 3, 16, 63, 64, 65, 80, 512, 513, 1100]  # lanes, where the loops change, pieces of 512
COUNTS = [1, 2, 5, 15, 16, 17, 65, 257]  # tiles, lanes, blocks of 64 and of 256


def cases(draw: Choices) -> Case:
    """Points of both dtypes in 0 to 2 dimensions of batches: spread out, on a grid so that some coincide, far from 0."""
    random = draw.generator()
    d, dtype = draw.choice(COORDINATES), draw.choice([np.float32, np.float64])
    n, m = draw.choice(COUNTS), draw.choice(COUNTS if d < 100 else COUNTS[:-1])
    leading: tuple[int, ...] = draw.choice([(), (), (3,), (2, 2)] if n * m * d < 20_000 else [()])
    x, y = (random.standard_normal((*leading, count, d)) for count in (n, m))
    if draw.boolean():
        x, y = np.round(x) + 0.5, np.round(y) + 0.5
    shift = draw.choice([0.0, 3.0])
    return {"x": (x + shift).astype(dtype), "y": (y + shift).astype(dtype), "metric": draw.choice(METRICS)}


def check(case: Case, function: Callable[..., Any] = kernels.pairwise_distance) -> Any:
    """Roundings of a sum, relative, of what is at most 1 where it is a cosine.

    A lane adds 512 / 16 terms (few coordinates: d), each of up to 3 roundings, then 4 folds; the rest is in double.
    """
    got, want = function(**case), reference_pairwise_distance(**case)
    dtype, d = case["x"].dtype, case["x"].shape[-1]
    roundings = 2 * ((d if d < 64 else min(d, 512) / 16 + 5) + 4) * np.finfo(dtype).eps / 2
    near("distances", got, want, roundings * (np.abs(want) + (case["metric"] == "cosine")), dtype)
    return got
