"""What the rotary op means (Su et al. 2021, halves rotated as in the GPT-NeoX form)."""

from __future__ import annotations

import numpy as np


def rotary(x, positions, head_dim, inverse_frequencies):
    """Rotate each head of x (rows, heads * head_dim): (a, b) -> (a cos - b sin, b cos + a sin), a and b its halves.

    angle = float32(position) * inverse frequency, rounded to float32 as the models were trained; the rest in float64.
    """
    angles = (positions.astype(np.float32)[:, None] * inverse_frequencies.astype(np.float32)).astype(np.float64)
    cosine, sine = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    heads = x.astype(np.float64).reshape(len(x), -1, head_dim)
    a, b = heads[..., : head_dim // 2], heads[..., head_dim // 2 :]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1).reshape(x.shape)
