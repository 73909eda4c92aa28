"""What `kernels.exp_log` means."""

from __future__ import annotations

import numpy as np


def exp_log(x):
    """e^x (0 below -86.98) and log x (of positive normal numbers), in float64."""
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        return np.where(x < np.float32(-86.98), 0.0, np.exp(x)), np.log(x)
