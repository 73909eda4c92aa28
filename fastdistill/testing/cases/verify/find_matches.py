"""Where the end of a text has stood before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.verify.find_matches import find_matches as reference_find_matches
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

# Nothing, one token, one under, at and over one and two blocks of 16 besides the last token, and one long text.
LENGTHS = [0, 1, 2, 3, 15, 16, 17, 18, 31, 32, 33, 34, 300]


def cases(draw: Choices) -> Case:
    """Few different tokens, so that there are many matches; texts that repeat themselves, with some tokens changed."""
    n, period, random = draw.choice(LENGTHS), draw.integer(1, 40), draw.generator()
    tokens = np.resize(random.integers(0, draw.choice([1, 2, 3, 50]), period), n)
    changed = random.random(n) < draw.choice([0.0, 0.05, 1.0])
    tokens[changed] = random.integers(-1, 3, changed.sum())
    min_match = draw.integer(1, 6)
    return {
        "tokens": tokens.astype(np.int32),
        "max_match": min_match + draw.choice([0, 1, 5, 400]),
        "min_match": min_match,
        "count": draw.integer(1, 16),
    }


def check(case: Case, function: Callable[..., Any] = kernels.find_matches) -> Any:
    """Equal places and lengths."""
    got = function(**case)
    for name, found, want in zip(("starts", "lengths"), got, reference_find_matches(**case), strict=True):
        same(name, found, want, np.int32)
    return got
