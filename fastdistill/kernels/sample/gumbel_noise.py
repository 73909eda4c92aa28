"""Gumbel noise for every token of a vocabulary, from a key and nothing else."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.kernels.boundary import const, ffi, lib, pointer


def gumbel_noise(
    positions: np.ndarray,
    vocab: int,
    *,
    seed: int = 0,
    sequence: int = 0,
    purpose: int = 0,
    round: int = 0,
    index: int = 0,
) -> np.ndarray:
    """One noise value a token, for each position. Keys that differ anywhere give independent noise.

    Parameters
    ----------
    positions : int32 (rows,)
        any value
    vocab : int
        1..2^31 - 1
    seed : int, default 0
        64 bits
    sequence : int, default 0
        32 bits
    purpose : int, default 0
        0..7, 0 is the target's own draw
    round : int, default 0
        0..2^20 - 1
    index : int, default 0
        0..2^12 - 1

    Returns
    -------
    float32 (rows, vocab)
        each in -3.2..22.9

    Raises
    ------
    ArgumentError
    """
    positions = as_array("positions", positions, np.int32, ("rows",))
    rows = len(positions)
    vocab = check_integer("vocab", vocab, 1, 2**31 - 1)
    chance = ffi.new("struct fd_chance *")
    chance.seed = check_integer("seed", seed, 0, 2**64 - 1)
    chance.sequence = check_integer("sequence", sequence, 0, 2**32 - 1)
    chance.purpose = check_integer("purpose", purpose, 0, 2**3 - 1)
    chance.round = check_integer("round", round, 0, 2**20 - 1)
    chance.index = check_integer("index", index, 0, 2**12 - 1)
    noise = np.empty((rows, vocab), np.float32)
    lib.fd_gumbel_noise(rows, vocab, const(positions), chance, pointer(noise))
    return noise
