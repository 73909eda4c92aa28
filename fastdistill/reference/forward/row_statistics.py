"""What `kernels.row_statistics` means."""

from __future__ import annotations

import numpy as np


def row_statistics(logits):
    """Of each row of logits (..., vocab): argmax, top, second, log_sum_exp, entropy, log_prob of argmax, each (...,).

    argmax is the first of the largest; second is the largest of the others; entropy is in nats.
    A logit of -inf is a ban and adds nothing.
    """
    z = logits.astype(np.float64)
    argmax = z.argmax(axis=-1)
    top = z.max(axis=-1)
    others = z.copy()
    np.put_along_axis(others, argmax[..., None], -np.inf, axis=-1)
    second = others.max(axis=-1)
    below = z - top[..., None]
    mass = np.exp(below)
    s0 = mass.sum(axis=-1)
    s1 = (np.where(mass > 0, below, 0.0) * mass).sum(axis=-1)
    rest = np.exp(others - top[..., None]).sum(axis=-1)
    return argmax, top, second, top + np.log(s0), np.log(s0) - s1 / s0, -np.log1p(rest)
