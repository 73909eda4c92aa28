"""What `kernels.sum_of_squares` means."""

from __future__ import annotations

import math

import numpy as np


def sum_of_squares(x):
    """The sum of the squares of x (n,), rounded once."""
    return math.fsum(np.square(x.astype(np.float64)))
