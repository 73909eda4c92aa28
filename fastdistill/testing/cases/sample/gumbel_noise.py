"""Gumbel noise of any key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.sample.gumbel_noise import gumbel_noise as reference_gumbel_noise
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

# The most that each part of a key may be.
KEY = {"seed": 2**64 - 1, "sequence": 2**32 - 1, "purpose": 7, "round": 2**20 - 1, "index": 2**12 - 1}
VOCABS = [1, 3, 4, 5, 63, 64, 65, 1000]  # words of four, blocks of 64


def cases(draw: Choices) -> Case:
    """A vocabulary, a key, any position and position 0."""
    vocab, position = draw.choice(VOCABS), draw.integer(-(2**31), 2**31 - 1)
    key = {name: draw.integer(0, most) for name, most in KEY.items()}
    return {"positions": np.array([position, 0], np.int32), "vocab": vocab, **key}


def check(case: Case, function: Callable[..., Any] = kernels.gumbel_noise) -> Any:
    """v rounds (1.44 2^-24 of E), log E is 2 ulp of E and 2 of itself, d / u = d costs 2^-24: below 2^-21 + 2^-22 |g|."""
    got, want = function(**case), reference_gumbel_noise(**case)
    near("noise", got, want, 2.0**-21 + 2.0**-22 * np.abs(want))
    return got
