"""Chances by key: of a sequence in an epoch of a run, whatever was drawn before."""

from __future__ import annotations

import numpy as np

from fastdistill.kernels.sample.philox import philox

# Purposes of words under a seed, beside those of decoders (decode/chance.py), which have 0 to 4.
SHUFFLE, MIXTURE = 5, 6


def words(seed: int, purpose: int, epoch: int, numbers: np.ndarray) -> np.ndarray:
    """uint64 (n,): 64 random bits for each number, below 2^63, of a purpose in an epoch, below 2^32."""
    counter = np.empty((len(numbers), 4), np.uint32)
    counter[:, 0] = purpose << 29
    counter[:, 1] = epoch
    counter[:, 2] = numbers & 0xFFFFFFFF
    counter[:, 3] = numbers >> 32
    found = philox(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)).astype(np.uint64)
    return np.asarray(found[:, 0] << np.uint64(32) | found[:, 1])


def uniforms(seed: int, purpose: int, epoch: int, numbers: np.ndarray) -> np.ndarray:
    """float64 (n,) in [0, 1): the upper 53 bits of `words`."""
    return np.asarray((words(seed, purpose, epoch, numbers) >> np.uint64(11)) * 2.0**-53)
