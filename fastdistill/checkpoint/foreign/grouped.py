"""Codes with a scale and a zero for each group of inputs: scale (code - zero), in blocks of ours where they hold it exactly.

- q4: scale code - scale zero, where f16 holds the scales and all scale zero
- q8: scale (code - zero), where f16 holds the scales, and int8 all code - zero
- f32: (code - zero) scale, rounded once where a scale has more than 15 bits or so

A block is 32 inputs in sequence, so blocks serve groups of 32, 64, 96 ... inputs in sequence, and groups that are whole rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastdistill.checkpoint.blocks import BLOCK
from fastdistill.checkpoint.foreign.foreign import Foreign

Scales = tuple[np.ndarray, np.ndarray]  # scales float32 (N, groups), zeros int32 (N, groups)


def add_grouped(
    foreign: Foreign,
    name: str,
    shape: tuple[int, int],
    bits: int,
    group: int,
    read_scales: Callable[[], Scales],
    read_codes: Callable[[], np.ndarray],
    groups: np.ndarray | None = None,
) -> None:
    """Add a matrix (N, K).

    Parameters
    ----------
    foreign : Foreign
    name : str
    shape : tuple[int, int]
        (N, K)
    bits : int
        codes are 0 .. 2^bits - 1; at most 8
    group : int
        inputs that share a scale; the last group may have fewer
    read_scales : Callable
        Scales, of ceil(K / group) groups
    read_codes : Callable
        uint8 (N, K)
    groups : int (K,), optional
        of which group each input is, where they are in no order
    """
    inputs = shape[1]
    in_blocks = groups is None and (group % BLOCK == 0 or group >= inputs)
    format, reason = "f32", "its groups of inputs are no blocks of 32"
    if in_blocks:
        format, reason = _format(bits, *read_scales()), "f16 does not hold its scales, or int8 its codes"
    if format != "f32":
        reason = ""

    def make() -> dict[str, np.ndarray]:
        scales, zeros = read_scales()
        of_input = np.arange(inputs) // group if groups is None else groups
        codes = read_codes()
        if format == "f32":
            values = (codes.astype(np.int16) - zeros.astype(np.int16)[:, of_input]).astype(np.float32)
            values *= scales[:, of_input]
            return {"data": values}
        blocks = -(-inputs // BLOCK)
        of_block = np.arange(blocks) * BLOCK // group
        scale = scales[:, of_block].astype(np.float16)
        if format == "q8":
            data = np.zeros((shape[0], blocks * BLOCK), np.int8)
            data[:, :inputs] = codes.astype(np.int16) - zeros.astype(np.int16)[:, of_input]
            return {"data": data, "scale": scale}
        padded = np.zeros((shape[0], blocks * BLOCK), np.uint8)
        padded[:, :inputs] = codes
        low, high = np.moveaxis(padded.reshape(shape[0], blocks, 2, BLOCK // 2), 2, 0)
        minimum = _minimum(scales, zeros)[:, of_block].astype(np.float16)
        return {"data": (low | high << 4).reshape(shape[0], -1), "scale": scale, "minimum": minimum}

    foreign.add(name, format, shape, make, reason)


def _format(bits: int, scales: np.ndarray, zeros: np.ndarray) -> str:
    if not _in_f16(scales):
        return "f32"
    if bits <= 4 and _in_f16(_minimum(scales, zeros)):
        return "q4"
    fits = zeros.size == 0 or (zeros.max() <= 128 and 2**bits - 1 - zeros.min() <= 127)
    return "q8" if fits else "f32"


def _minimum(scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """-scale zero, float32: exact where f16 holds the scale, with 11 + 8 bits."""
    return -scales * zeros.astype(np.float32)


def _in_f16(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    return bool((rounded == values).all() and np.isfinite(rounded).all())
