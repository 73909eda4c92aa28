"""Weights as small integers: what the codes of q8 and q4 mean, and how they are chosen.

A row of K weights is cut into blocks of 32, the last one padded. A block has one scale, in q4 a minimum too, both f16:

- q8: weight = scale * code; code in -128..127 (chosen here: -127..127)
- q4: weight = scale * code + minimum; code in 0..15

in float32: the products are exact (11 + 8 bits), the sum of q4 rounds once. Byte j of a q4 block holds code j in its
low half and code j + 16 in its high half.

Codes are chosen with the rounded scale and minimum, since those are what is stored. Where f16 cannot hold them, or the
weights are not finite, a scale or minimum is not finite either.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

BLOCK = 32


def quantize_q8(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest codes where the largest magnitude of a block is 127.

    Parameters
    ----------
    weights : float32 (N, K)

    Returns
    -------
    codes : int8 (N, blocks * 32)
        0 in the padding
    scale : float16 (N, blocks)
        blocks = ceil(K / 32)
    """
    blocks = _cut(weights, mode="constant")
    with np.errstate(over="ignore", invalid="ignore"):
        scale = (np.abs(blocks).max(2) / np.float32(127)).astype(np.float16)
        codes = _nearest(blocks, scale, -127, 127).astype(np.int8)
    return _row(codes), scale


def dequantize_q8(codes: np.ndarray, scale: np.ndarray, inputs: int) -> np.ndarray:
    """scale * code.

    Parameters
    ----------
    codes : int8 (N, blocks * 32)
    scale : float16 (N, blocks)
    inputs : int
        K, at most blocks * 32

    Returns
    -------
    float32 (N, K)
    """
    weights = codes.reshape(*scale.shape, BLOCK).astype(np.float32)
    weights *= scale[:, :, None].astype(np.float32)
    return _row(weights)[:, :inputs]


def quantize_q4(weights: np.ndarray, refits: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes whose squared error is small: first the block's whole range, then lines fitted to the codes it gave.

    The range starts at the f16 at or below the lowest weight, so it holds every weight. Each refit is the least-squares
    scale and minimum for the best codes so far, and is taken where its own codes are closer. On bell-shaped weights the
    refits take 13 % off the squared error; more than four gain little.

    Parameters
    ----------
    weights : float32 (N, K)
    refits : int, default 4

    Returns
    -------
    codes : uint8 (N, blocks * 16)
        0 in the padding
    scale, minimum : float16 (N, blocks)
    """
    blocks = _cut(weights, mode="edge")
    with np.errstate(over="ignore", invalid="ignore"):
        lowest = blocks.min(2)
        minimum = lowest.astype(np.float16)
        minimum = np.where(minimum > lowest, np.nextafter(minimum, np.float16(-np.inf)), minimum)
        scale = ((blocks.max(2) - minimum) / np.float32(15)).astype(np.float16)
        codes, error = _codes_and_error(blocks, scale, minimum)
        for _ in range(refits):
            new_scale, new_minimum = _fit(blocks, codes)
            new_codes, new_error = _codes_and_error(blocks, new_scale, new_minimum)
            closer = new_error < error
            scale, minimum = np.where(closer, new_scale, scale), np.where(closer, new_minimum, minimum)
            codes, error = np.where(closer[:, :, None], new_codes, codes), np.where(closer, new_error, error)
        codes = codes.astype(np.uint8)
    _row(codes)[:, weights.shape[1] :] = 0
    return _row(codes[:, :, :16] | codes[:, :, 16:] << 4), scale, minimum


def dequantize_q4(codes: np.ndarray, scale: np.ndarray, minimum: np.ndarray, inputs: int) -> np.ndarray:
    """scale * code + minimum.

    Parameters
    ----------
    codes : uint8 (N, blocks * 16)
    scale : float16 (N, blocks)
    minimum : float16 (N, blocks)
    inputs : int
        K, at most blocks * 32

    Returns
    -------
    float32 (N, K)
    """
    packed = codes.reshape(*scale.shape, BLOCK // 2)
    weights = np.concatenate([packed & 15, packed >> 4], axis=2).astype(np.float32)
    weights *= scale[:, :, None].astype(np.float32)
    weights += minimum[:, :, None].astype(np.float32)
    return _row(weights)[:, :inputs]


def _cut(weights: np.ndarray, mode: Literal["constant", "edge"]) -> np.ndarray:
    """float32 (N, K) -> (N, blocks, 32). The padding is zeros, or by mode "edge" more of each row's last weight."""
    rows, inputs = weights.shape
    if inputs % BLOCK:
        weights = np.pad(weights, [(0, 0), (0, -inputs % BLOCK)], mode=mode)
    return weights.reshape(rows, -(-inputs // BLOCK), BLOCK)


def _row(blocks: np.ndarray) -> np.ndarray:
    """(N, blocks, size) -> (N, blocks * size), a view."""
    rows, count, size = blocks.shape
    return blocks.reshape(rows, count * size)


def _nearest(values: np.ndarray, scale: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    """values / scale to the nearest integer, half to even, within lowest..highest; 0 where the scale is."""
    steps = np.where(scale == 0, np.float32(np.inf), scale.astype(np.float32))
    return np.clip(np.rint(values / steps[:, :, None]), lowest, highest)


def _codes_and_error(blocks: np.ndarray, scale: np.ndarray, minimum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest q4 codes, float32 (N, blocks, 32), and each block's squared error."""
    start = minimum[:, :, None].astype(np.float32)
    codes = _nearest(blocks - start, scale, 0, 15)
    error = codes * scale[:, :, None].astype(np.float32) + start - blocks
    return codes, np.einsum("nbk,nbk->nb", error, error)


def _fit(blocks: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The line minimum + scale * code with the least squared error over a block's weights."""
    code_sum, weight_sum = codes.sum(2), blocks.sum(2)
    spread = BLOCK * np.einsum("nbk,nbk->nb", codes, codes) - code_sum**2
    spread[spread == 0] = np.inf
    scale = (BLOCK * np.einsum("nbk,nbk->nb", codes, blocks) - code_sum * weight_sum) / spread
    return scale.astype(np.float16), ((weight_sum - scale * code_sum) / BLOCK).astype(np.float16)
