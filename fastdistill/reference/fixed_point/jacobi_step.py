"""What `kernels.jacobi_step` means."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.fixed_point.fixed_point_prefix import fixed_point_prefix
from fastdistill.reference.sample.sample import sample


def jacobi_step(iterate, target, *, sampler=None, positions=None):
    """next (..., n), prefix (...), stationary (..., n), bonus (...), converged (...) of an iterate (..., n).

    The seed stays; every other position becomes what the model says after the one before it.
    """
    drawn = _drawn(iterate, target, sampler, positions)
    moved = np.concatenate([iterate[..., :1], drawn[..., :-1]], axis=-1)
    stationary = moved == iterate
    return moved, fixed_point_prefix(iterate, moved), stationary, drawn[..., -1], stationary.all(axis=-1)


def _drawn(iterate, target, sampler, positions):
    """What the model says after each position, int32 (..., n)."""
    if isinstance(target, tuple):  # row statistics
        return target[0]
    if target.ndim == iterate.ndim:
        return target
    if sampler is None:
        return target.argmax(axis=-1).astype(np.int32)
    positions = np.zeros_like(iterate) if positions is None else positions
    drawn = sample(target.reshape(iterate.size, -1), sampler, positions.reshape(-1)).tokens
    return drawn.reshape(iterate.shape).astype(np.int32)
