"""What `kernels.fixed_point_prefix` means."""

from __future__ import annotations

import numpy as np


def fixed_point_prefix(previous, current):
    """How many leading positions of current (..., n), which was made from previous (..., n), are final: (...,).

    Those equal in both, and the first that differs: what it was made from is final.
    """
    equal = (previous == current).cumprod(axis=-1).sum(axis=-1)
    return np.minimum(equal + 1, current.shape[-1]).astype(np.int32)
