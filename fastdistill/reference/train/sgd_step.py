"""What `kernels.sgd_step` means."""

from __future__ import annotations

import numpy as np


def sgd_step(
    value,
    gradient,
    velocity=None,
    *,
    learning_rate,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    decoupled=False,
    gradient_scale=1.0,
    zero_gradient=False,
):
    """Value, gradient and velocity (or None), each (n,), after a step of gradient descent."""
    value, g = value.astype(np.float64), gradient.astype(np.float64) * gradient_scale
    if decoupled:
        value *= 1 - learning_rate * weight_decay
    else:
        g += weight_decay * value
    direction = g
    if velocity is not None:
        velocity = momentum * velocity.astype(np.float64) + g
        direction = g + momentum * velocity if nesterov else velocity
    return value - learning_rate * direction, gradient * (not zero_gradient), velocity
