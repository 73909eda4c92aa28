"""A named weight as a checkpoint stores it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import EllipsisType

import numpy as np

from fastdistill.checkpoint.blocks import BLOCK, dequantize_q4, dequantize_q8
from fastdistill.checkpoint.safetensors_file import StoredArray
from fastdistill.errors import CheckpointError
from fastdistill.messages import short

# What a model can compute with.
FORMATS = ("f32", "f16", "bf16", "q8", "q4")


class Tensor:
    """A weight; immutable.

    Attributes
    ----------
    name : str
        as the checkpoint has it
    format : str
        "f32", "f16", "bf16", "q8" or "q4"; of a tensor that no model computes with its safetensors type ("i64",
        "f64", ...)
    shape : tuple[int, ...]
        the logical one, (out, in) for linears, whatever the format
    data : np.ndarray
        the numbers, bits or codes; dtype and shape as `layout` says
    scale : float16 (out, blocks) or None
        of q8 and q4; else None
    minimum : float16 (out, blocks) or None
        of q4; else None
    nbytes : int
        bytes of all its arrays
    stored
        its arrays by field, unread where they lie in a file

    Notes
    -----
    Its arrays lie in memory, or in a file: then they are read anew whenever they are asked for, and that is what raises
    CheckpointError where the file has been cut short. Whoever needs one twice keeps it.
    """

    def __init__(
        self,
        name: str,
        format: str,
        shape: tuple[int, ...],
        data: np.ndarray | StoredArray,
        scale: np.ndarray | StoredArray | None = None,
        minimum: np.ndarray | StoredArray | None = None,
    ) -> None:
        self.name, self.format, self.shape = name, format, shape
        parts = {"data": data, "scale": scale, "minimum": minimum}
        self.stored = {name: part for name, part in parts.items() if part is not None}

    def __repr__(self) -> str:
        return f"Tensor({short(self.name)}, {short(self.format)}, {self.shape})"

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The arrays that the format has, by field."""
        return {name: np.asarray(part) for name, part in self.stored.items()}

    @property
    def data(self) -> np.ndarray:
        return np.asarray(self.stored["data"])

    @property
    def scale(self) -> np.ndarray | None:
        return np.asarray(self.stored["scale"]) if "scale" in self.stored else None

    @property
    def minimum(self) -> np.ndarray | None:
        return np.asarray(self.stored["minimum"]) if "minimum" in self.stored else None

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.stored.values())

    def chunks(self, values: int) -> Iterator[slice | EllipsisType]:
        """Rows to take at a time, of about so many values; everything at once where there are no rows."""
        if not self.shape:
            yield ...
            return
        step = max(1, values // max(1, math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], step):
            yield slice(start, start + step)

    def rows(self, index: np.ndarray | slice | EllipsisType) -> Tensor:
        """The tensor of some rows (of everything, where the index is `...`), in the same format, in memory."""
        parts = {name: part[index] for name, part in self.stored.items()}
        return Tensor(self.name, self.format, (*parts["data"].shape[:1], *self.shape[1:]), **parts)

    def to_float32(self) -> np.ndarray:
        """The exact values, float32 of `shape`.

        Raises
        ------
        CheckpointError
            for a type that is not in FORMATS
        """
        if self.format not in FORMATS:
            raise CheckpointError(f"{self.name}: has the type {self.format}; weights are {', '.join(FORMATS)}")
        parts = self.parts
        if self.format == "q8":
            return dequantize_q8(parts["data"], parts["scale"], self.shape[1])
        if self.format == "q4":
            return dequantize_q4(parts["data"], parts["scale"], parts["minimum"], self.shape[1])
        if self.format == "bf16":
            bits = parts["data"].astype(np.uint32)
            bits <<= 16
            return bits.view(np.float32)
        return parts["data"].astype(np.float32)


def layout(format: str, shape: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtype and shape of each array of a tensor in a format; q8 and q4 are for shapes (N, K) only.

    q8: int8 codes (N, blocks * 32), float16 scale (N, blocks), blocks = ceil(K / 32). q4: uint8 codes
    (N, blocks * 16), two to a byte, float16 scale and minimum (N, blocks). bf16 is kept as its bits, uint16.
    """
    if format not in ("q8", "q4"):
        return {"data": ({"f32": "float32", "f16": "float16", "bf16": "uint16"}[format], shape)}
    rows, inputs = shape
    blocks = -(-inputs // BLOCK)
    scale = ("float16", (rows, blocks))
    if format == "q8":
        return {"data": ("int8", (rows, blocks * BLOCK)), "scale": scale}
    return {"data": ("uint8", (rows, blocks * BLOCK // 2)), "scale": scale, "minimum": scale}
