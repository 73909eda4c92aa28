"""How many leading positions of an iterate are final."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.fixed_point.fixed_point_prefix import fixed_point_prefix as reference_fixed_point_prefix
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

# Nothing, one token, one under, at and over one and two blocks of 16, and one long row.
LENGTHS = [0, 1, 2, 15, 16, 17, 31, 32, 33, 300]
LEADING = [(), (0,), (1,), (3,), (2, 3)]


def cases(draw: Choices) -> Case:
    """Any int32; rows that agree, differ here and there, or differ everywhere."""
    shape, random = (*draw.choice(LEADING), draw.choice(LENGTHS)), draw.generator()
    previous = random.integers(-(2**31), 2**31, shape).astype(np.int32)
    differs = random.random(shape) < draw.choice([0, 0.01, 0.1, 1])
    flips = np.where(differs, 1 << random.integers(0, 32, shape), 0).astype(np.uint32).view(np.int32)
    return {"previous": previous, "current": previous ^ flips}


def check(case: Case, function: Callable[..., Any] = kernels.fixed_point_prefix) -> Any:
    """Equal counts."""
    got = function(**case)
    same("prefix", got, reference_fixed_point_prefix(**case), np.int32)
    return got
