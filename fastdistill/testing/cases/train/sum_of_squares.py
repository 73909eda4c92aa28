"""Sums of squares of arrays of every length and scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.train.sum_of_squares import sum_of_squares as reference_sum_of_squares
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

# Lanes and a part, one under, at and over; parts that have to be longer than the least.
LENGTHS = [0, 1, 15, 16, 17, 1000, 4095, 4096, 4097, 3 * 4096 + 5, 512 * 4096 + 1]


def cases(draw: Choices) -> Case:
    """Numbers whose squares are beyond float32, too."""
    n, random = draw.choice(LENGTHS), draw.generator()
    return {"x": random.standard_normal(n, np.float32) * np.float32(draw.choice([1.0, 1e-30, 1e30]))}


def check(case: Case, function: Callable[..., Any] = kernels.sum_of_squares) -> Any:
    """Squares are exact; a lane adds n / 16 of them at most, then a fold of 4 and the parts."""
    got, want = function(**case), reference_sum_of_squares(**case)
    near("sum", got, want, (min(case["x"].size, 8192) / 16 + 4 + 512) * 2.0**-53 * want)
    return got
