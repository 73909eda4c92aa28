"""What `kernels.adamw_step` means."""

from __future__ import annotations

import numpy as np


def adamw_step(
    value,
    gradient,
    first,
    second,
    *,
    step,
    learning_rate,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.0,
    gradient_scale=1.0,
    zero_gradient=False,
):
    """Value, gradient, first and second moment, each (n,), after step number `step` (1, 2, ...) of AdamW."""
    value, g, first, second = (array.astype(np.float64) for array in (value, gradient, first, second))
    g *= gradient_scale
    first = beta1 * first + (1 - beta1) * g
    second = beta2 * second + (1 - beta2) * g**2
    value = value * (1 - learning_rate * weight_decay)
    mean, deviation = first / (1 - beta1**step), np.sqrt(second / (1 - beta2**step))
    value -= learning_rate * mean / (deviation + epsilon)
    return value, gradient * (not zero_gradient), first, second
