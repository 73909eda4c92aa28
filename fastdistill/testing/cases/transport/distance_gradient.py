"""The gradient of a weighted sum of distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.transport.distance_gradient import distance_gradient as reference_distance_gradient
from fastdistill.testing.cases.transport import pairwise_distance
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near


def cases(draw: Choices) -> Case:
    """Weights of both signs, some of them 0, beside points."""
    case, random = pairwise_distance.cases(draw), draw.generator()
    shape = (*case["x"].shape[:-1], case["y"].shape[-2])
    weights = random.standard_normal(shape) * (random.random(shape) < 0.8)
    return {"weights": weights.astype(case["x"].dtype), **case}


def check(case: Case, function: Callable[..., Any] = kernels.distance_gradient) -> Any:
    """A lane adds 64 points (few coordinates: 16), each with 3 roundings, folds 4 times; euclidean divides by a distance, a cosine's
    points were scaled.  Terms are at most |w| times the slope: 2 |x - y|, 1, or 2 / |x|.

    An edge of the euclidean: where points all but coincide, the direction is that of a difference of rounded coordinates, exact.
    """
    got, want = function(**case), reference_distance_gradient(**case)
    x, y = (case[name].astype(np.float64) for name in "xy")
    mass = np.abs(case["weights"].astype(np.float64)).sum(axis=-1, keepdims=True)
    slope = {
        "sqeuclidean": 2 * np.abs(x).max() + 2 * np.abs(y).max(),
        "cosine": 4 / np.linalg.norm(x, axis=-1, keepdims=True),
    }.get(case["metric"], 1)
    unit = np.finfo(case["x"].dtype).eps / 2
    near("gradient", got, want, (64 * 3 + 80) * unit * mass * slope, case["x"].dtype)
    return got
