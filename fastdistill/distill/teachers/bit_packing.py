"""Integers in as many bits as they need, and ascending ids in fewer: a row of bytes for each row of numbers."""

from __future__ import annotations

import numpy as np


def packed_bytes(count: int, width: int) -> int:
    """Bytes of a row of so many integers of so many bits."""
    return -(-count * width // 8)


def pack_bits(values: np.ndarray, width: int) -> np.ndarray:
    """uint8 (n, packed_bytes): integers (n, k) below 2^width, the highest bit first, zeros behind the last."""
    return np.packbits(_bits(values, width), axis=1)


def unpack_bits(packed: np.ndarray, count: int, width: int) -> np.ndarray:
    """int32 (n, count): what `pack_bits` packed, of at most 31 bits each."""
    return _integers(np.unpackbits(packed, axis=1, count=count * width), count, width)


def ascending_bytes(count: int, limit: int) -> int:
    """Bytes of a row of so many different integers below a limit, in order."""
    low = _low_bits(count, limit)
    return -(-(count * low + count + (limit - 1 >> low)) // 8)


def pack_ascending(values: np.ndarray, limit: int) -> np.ndarray:
    """uint8 (n, ascending_bytes): integers (n, k) below limit, each row ascending without repetition.

    Elias and Fano: the low bits of each as they are; of the high parts h_0 <= h_1 <= ... the bits h_i + i are set, of
    which there are as many as numbers, so that their places give the high parts back. That takes less than a bit a number
    more than the logarithm of how many such rows there are; where the order of the ids does not matter, it saves
    what the order would take, of 50 ids 27 bytes.
    """
    rows, count = values.shape
    low = _low_bits(count, limit)
    high = np.zeros((rows, count + (limit - 1 >> low)), np.uint8)
    np.put_along_axis(high, (values >> low) + np.arange(count), 1, axis=1)
    return np.packbits(np.concatenate([_bits(values & (1 << low) - 1, low), high], axis=1), axis=1)


def unpack_ascending(packed: np.ndarray, count: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """What `pack_ascending` packed, and which rows it cannot have been.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        int32 (n, count), zeros where a row is wrong, and bool (n,): it is
    """
    low = _low_bits(count, limit)
    bits = np.unpackbits(packed, axis=1, count=count * low + count + (limit - 1 >> low))
    high = bits[:, count * low :]
    wrong = high.sum(axis=1) != count
    values = np.zeros((len(packed), count), np.int32)
    places = np.nonzero(high[~wrong])[1].reshape(-1, count)
    values[~wrong] = (places - np.arange(count)) << low | _integers(bits[~wrong, : count * low], count, low)
    odd = (np.diff(values, axis=1) <= 0).any(axis=1) | (values[:, -1] >= limit)
    wrong |= odd
    values[wrong] = 0
    return values, wrong


def _low_bits(count: int, limit: int) -> int:
    """So many of each number as they are, that a row is the shortest: about log2(limit / count)."""
    return min(range(31), key=lambda low: count * low + (limit - 1 >> low))


def _bits(values: np.ndarray, width: int) -> np.ndarray:
    """uint8 (n, k * width) of 0 and 1."""
    shifts = np.arange(width - 1, -1, -1)
    return (values[:, :, None] >> shifts & 1).astype(np.uint8).reshape(len(values), values.shape[1] * width)


def _integers(bits: np.ndarray, count: int, width: int) -> np.ndarray:
    """int32 (n, count) of 0 and 1 (n, count * width): filled up in front to the next machine word."""
    word = 8 if width <= 8 else 16 if width <= 16 else 32
    filled = np.zeros((len(bits), count, word), np.uint8)
    filled[:, :, word - width :] = bits.reshape(len(bits), count, width)
    return np.packbits(filled, axis=2).view(f">u{word // 8}").reshape(len(bits), count).astype(np.int32)
