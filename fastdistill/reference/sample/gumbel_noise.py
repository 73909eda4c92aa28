"""What `kernels.gumbel_noise` means."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.sample.philox import philox


def gumbel_noise(positions, vocab, *, seed=0, sequence=0, purpose=0, round=0, index=0):
    """g = -log(-log1p(-v)), v = (r + 1/2) 2^-32, r = word token % 4 of the Philox block of token / 4: (rows, vocab).

    Key: the seed.  Counter: { purpose 3 bits | token / 4 29 bits, position, round 20 bits | index 12 bits, sequence }.
    """
    quads = np.arange((vocab + 3) // 4, dtype=np.uint32)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    noise = np.empty((len(positions), vocab))
    for row, position in zip(noise, positions, strict=True):
        counter = np.empty((len(quads), 4), np.uint32)
        counter[:, 0] = purpose << 29 | quads
        counter[:, 1] = int(position) & 0xFFFFFFFF
        counter[:, 2] = round << 12 | index
        counter[:, 3] = sequence
        v = (philox(counter, key).reshape(-1)[:vocab] + 0.5) * 2.0**-32
        row[:] = -np.log(-np.log1p(-v))
    return noise
