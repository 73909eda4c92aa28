"""What lies between a tensor of Hugging Face's and the same of a GGUF file: rows in another order, a transpose, an addend.

Rows are whole blocks: moving them loses nothing in any format. Whatever else is moved is dequantised first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastdistill.checkpoint.tensor import Tensor

Sizes = Mapping[str, int]  # every length that a tensor may have, by name
_Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Move:
    """One kind of them.

    Attributes
    ----------
    to_folder, to_file : Callable
        (tensor, sizes) -> tensor; each undoes the other
    folder_shape : Callable
        the shape in the file -> that in the folder
    keeps_blocks : bool
        whether q8 and q4 stay what they are
    """

    to_folder: Callable[[Tensor, Sizes], Tensor]
    to_file: Callable[[Tensor, Sizes], Tensor]
    folder_shape: Callable[[_Shape], _Shape] = lambda shape: shape
    keeps_blocks: bool = True


def rotary_rows(rows: int, heads: int) -> np.ndarray:
    """Where each row of a query or key projection lies in a GGUF file, int64 (rows,).

    Hugging Face rotates row i of a head with row i + half; of some architectures llama.cpp rotates neighbours, so its
    converter writes them interleaved: i to 2 i, i + half to 2 i + 1.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()


def grouped_rows(heads: int, kv_heads: int, head: int) -> np.ndarray:
    """Where each row of a fused projection lies in a GGUF file, int64 ((heads + 2 kv_heads) * head,).

    GPT-NeoX has a query, a key and a value head after the other, over and over; llama.cpp all queries, all keys, all values.
    """
    rows = np.arange((heads + 2 * kv_heads) * head).reshape(-1, head)
    queries, keys, values = np.split(rows, [heads, heads + kv_heads])
    queries = queries.reshape(kv_heads, -1, head)
    return np.concatenate([queries, keys[:, None], values[:, None]], axis=1).ravel()


def _rows(order: Callable[[int, Sizes], np.ndarray]) -> Move:
    return Move(
        lambda tensor, sizes: tensor.rows(order(tensor.shape[0], sizes)),
        lambda tensor, sizes: tensor.rows(np.argsort(order(tensor.shape[0], sizes))),
    )


def _values(tensor: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """The tensor with its numbers changed: bits where only their places are, f32 of blocks."""
    format = "f32" if tensor.format in ("q8", "q4") else tensor.format
    data = np.ascontiguousarray(change(tensor.to_float32() if format != tensor.format else tensor.data))
    return Tensor(tensor.name, format, data.shape, data)


def _added(addend: float) -> Callable[[Tensor, Sizes], Tensor]:
    def add(tensor: Tensor, sizes: Sizes) -> Tensor:
        data = tensor.to_float32() + np.float32(addend)
        return Tensor(tensor.name, "f32", tensor.shape, data)

    return add


def _transposed(tensor: Tensor, sizes: Sizes) -> Tensor:
    return tensor if len(tensor.shape) == 1 else _values(tensor, np.transpose)


def _same(tensor: Tensor, sizes: Sizes) -> Tensor:
    return tensor


KEEP = Move(_same, _same)
ROTARY_QUERIES = _rows(lambda rows, sizes: rotary_rows(rows, sizes["heads"]))
ROTARY_KEYS = _rows(lambda rows, sizes: rotary_rows(rows, sizes["kv_heads"]))
GROUPED_ROWS = _rows(lambda rows, sizes: grouped_rows(sizes["heads"], sizes["kv_heads"], sizes["head"]))
# Several of one shape in a row, the experts of a layer: each is a tensor of its own in a folder.
STACK = Move(_same, _same, lambda shape: shape[1:])
# Gemma multiplies by one more than its weights; its weights in a GGUF file have the one.
ADD_ONE = Move(_added(-1.0), _added(1.0), keeps_blocks=False)
# GPT-2's own layout of a linear, inputs first.
TRANSPOSE = Move(_transposed, _transposed, lambda shape: shape[::-1], keeps_blocks=False)
