"""What `kernels.exp_log` means."""

from __future__ import annotations

import numpy as np


def exp_log(x):
    """e^x (0 below -86.98, of float64 below -708, and no more than e^708) and log x (of positive normal numbers), with more digits."""
    least, most = (-708, 708) if x.dtype == np.float64 else (np.float32(-86.98), np.inf)
    x = x.astype(np.longdouble if x.dtype == np.float64 else np.float64)
    with np.errstate(all="ignore"):
        return np.where(x < least, 0.0, np.exp(np.minimum(x, most))), np.log(x)
