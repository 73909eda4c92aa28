"""What the rms_norm op means (Zhang and Sennrich 2019)."""

from __future__ import annotations

import numpy as np


def rms_norm(x, weight, epsilon):
    """x (rows, width) / sqrt(mean x^2 + epsilon) * weight (width,), in float64."""
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + np.float64(np.float32(epsilon))) * weight
