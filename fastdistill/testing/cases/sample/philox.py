"""Random words of any counters and key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.sample.philox import philox as reference_philox
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

COUNTS = [1, 0, 15, 16, 17, 1000]


def cases(draw: Choices, counts: Sequence[int] = COUNTS) -> Case:
    """Any words."""
    n, random = draw.choice(counts), draw.generator()
    counter, key = random.integers(0, 2**32, (n, 4), np.uint32), random.integers(0, 2**32, 2, np.uint32)
    return {"counter": counter, "key": key}


def check(case: Case, function: Callable[..., Any] = kernels.philox) -> Any:
    """Equal words."""
    got = function(**case)
    same("words", got, reference_philox(**case))
    return got
