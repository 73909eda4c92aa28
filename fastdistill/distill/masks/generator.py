"""Where random draws come from: the caller's generator, or a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import check_integer
from fastdistill.errors import ArgumentError
from fastdistill.messages import short

MOST_SEED = 2**63 - 1


def as_generator(name: str, value: Any) -> np.random.Generator:
    """A NumPy generator, which goes on where it stood, or one that begins at a seed."""
    if isinstance(value, np.random.Generator):
        return value
    if value is None or isinstance(value, (float, str)):
        raise ArgumentError(f"{name} must be a numpy.random.Generator or an integer seed, got {short(value)}")
    return np.random.default_rng(check_integer(name, value, 0, MOST_SEED))
