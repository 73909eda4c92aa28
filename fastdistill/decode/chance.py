"""Uniform chances by key, beside the Gumbel noise of the target's own draws: (seed, sequence, position, purpose, round, index)."""

from __future__ import annotations

import numpy as np

from fastdistill.kernels.sample.philox import philox
from fastdistill.kernels.sample.sample import Sampler

DRAFT, VERDICT, INITIAL, ORDER = 1, 2, 3, 4  # purposes; 0 is the target's own draw
MOST_ROUNDS, MOST_INDICES = (
    1 << 20,
    1 << 12,
)  # as wide as their fields in the counter (docs/kernels/sample/gumbel_noise.md)


def uniforms(
    sampler: Sampler, position: int | np.ndarray, round: int, count: int, purpose: int = VERDICT
) -> np.ndarray:
    """float64 (count,) in [0, 1), one for each index from 0: 53 bits of Philox under the sampler's seed.

    Parameters
    ----------
    sampler : Sampler
    position : int | np.ndarray
        of all of them, or of each, (count,)
    round : int
    count : int
    purpose : int, optional
    """
    counter = np.empty((count, 4), np.uint32)
    counter[:, 0] = purpose << 29
    counter[:, 1] = position
    counter[:, 2] = (round % MOST_ROUNDS << 12) + np.arange(count, dtype=np.uint32)
    counter[:, 3] = sampler.sequence
    words = philox(counter, np.array([sampler.seed & 0xFFFFFFFF, sampler.seed >> 32], np.uint32)).astype(np.uint64)
    return ((words[:, 0] << np.uint64(21)) ^ (words[:, 1] >> np.uint64(11))) * 2.0**-53
