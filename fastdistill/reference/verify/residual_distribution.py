"""What `kernels.residual_distribution` means."""

from __future__ import annotations

import numpy as np


def residual_distribution(p, q, a=1.0):
    """What is left of a p (vocab,) when q (vocab,) is taken away: max(a p - q, 0), not normalised, and its sum."""
    r = np.maximum(np.float64(np.float32(a)) * p.astype(np.float64) - q, 0)
    return r, r.sum()
