"""Numbers of 8 bits with an exponent (Micikevicius et al. 2022), as f16, which holds them all.

- F8_E4M3: 4 bits of exponent, 3 of mantissa, no infinity ("fn"); the largest code is the one NaN, the largest number 448
- F8_E5M2: the upper half of an f16
"""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np

from fastdistill.checkpoint.foreign.foreign import FLOATS, Foreign, floats
from fastdistill.checkpoint.safetensors_file import Stored, StoredArray

FLOATS8 = ("F8_E4M3", "F8_E5M2")


def _e4m3() -> np.ndarray:
    """float16 (256,), by code."""
    codes = np.arange(128)
    exponents, mantissas = codes >> 3, codes & 7
    values = np.where(exponents, 1 + mantissas / 8, mantissas / 4) * 2.0 ** (exponents - 7)  # 0: as 1, without the 1
    values[127] = np.nan
    return np.concatenate([values, -values]).astype(np.float16)


_E4M3 = _e4m3()


class Float8Array(StoredArray):
    """An array of FLOATS8 as float16, exactly; its rows are read alone."""

    def __init__(self, stored: Stored) -> None:
        self._type, self._codes = stored.dtype, stored.array
        self.dtype, self.shape, self.nbytes = np.dtype(np.float16), stored.array.shape, 2 * stored.array.nbytes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...] if dtype is None else self[...].astype(dtype, copy=False)

    def __getitem__(self, index: np.ndarray | slice | EllipsisType) -> np.ndarray:
        codes = np.asarray(self._codes[index])
        made = _E4M3[codes] if self._type == "F8_E4M3" else (codes.astype(np.uint16) << 8).view(np.float16)
        return np.asarray(made)  # of no axis NumPy makes a number


def add_scaled(foreign: Foreign, module: str, scale: str, block: tuple[int, int] | None) -> None:
    """Add the matrix X.weight of FLOATS8 times X.`scale`: one, one an output, or one a block of (outputs, inputs); f32, rounded once."""
    weight = foreign.take(f"{module}.weight", FLOATS8, (None, None))
    outputs, inputs = weight.array.shape
    shapes: list[tuple[int, ...]] = [(), (1,), (outputs,), (outputs, 1)]
    if block is not None:
        shapes = [(-(-outputs // block[0]), -(-inputs // block[1]))]
    scales = foreign.take(f"{module}.{scale}", FLOATS, *shapes)

    def make() -> dict[str, np.ndarray]:
        values, factors = Float8Array(weight)[...].astype(np.float32), floats(scales)
        if block is None:
            values *= factors.reshape(-1, 1)
        else:
            for row, factor in enumerate(factors):
                values[row * block[0] : (row + 1) * block[0]] *= factor[np.arange(inputs) // block[1]]
        return {"data": values}

    foreign.add(f"{module}.weight", "f32", (outputs, inputs), make, "8-bit floats times a scale are no blocks of ours")
