"""What `kernels.softmax` means."""

from __future__ import annotations

import numpy as np


def softmax(logits, temperature=1.0):
    """The softmax of logits (..., vocab) over temperature, row by row."""
    terms = np.exp((logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)) / temperature)
    return terms / terms.sum(axis=-1, keepdims=True)


def softmax_gradient(probabilities, gradient, temperature=1.0, *, weight=1.0):
    """Of a gradient by the probabilities (..., vocab), that by the logits."""
    p, g = probabilities.astype(np.float64), gradient.astype(np.float64)
    return weight / temperature * p * (g - (p * g).sum(axis=-1, keepdims=True))
