"""The safetensors format: the header's length in 8 bytes, a JSON header, the arrays' bytes one after another.

The header is read and every statement of it checked against the file's size; an array is read when it is used, into
memory of its own. The file is not mapped, as the official library maps it: a mapped file that is cut short ends the
process. Nothing here needs that library; the tests hold what is read and written against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastdistill.errors import CheckpointError
from fastdistill.files import MAX_JSON_BYTES, RegularFile, parse_json
from fastdistill.messages import short

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1",
    "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1", "C64": "<c8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_MAX_RANK = 8


class StoredArray:
    """An array in an open file: `numpy.asarray` reads it, an index some of its rows, into fresh memory.

    Raises
    ------
    CheckpointError
        where the file has become too short
    """

    def __init__(self, file: RegularFile, name: str, dtype: str, shape: tuple[int, ...], offset: int) -> None:
        self._file, self._name, self._offset = file, name, offset
        self.dtype, self.shape = np.dtype(dtype), shape
        self.nbytes = math.prod(shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = self._read(0, self.nbytes).reshape(self.shape)
        return data if dtype is None else data.astype(dtype, copy=False)

    def __getitem__(self, index: np.ndarray | slice | EllipsisType) -> np.ndarray:
        if not isinstance(index, slice) or index.step not in (None, 1) or not self.shape:
            return np.asarray(self)[index]
        begin, end, _ = index.indices(self.shape[0])
        count, row = max(0, end - begin), math.prod(self.shape[1:]) * self.dtype.itemsize
        return self._read(begin * row, count * row).reshape(count, *self.shape[1:])

    def _read(self, begin: int, size: int) -> np.ndarray:
        return self._file.read(size, self._offset + begin, self._name).view(self.dtype)


class Stored(NamedTuple):
    """An array under its type in the file: NumPy has no bfloat16 and no float8, whose bits come as uint16 and uint8.

    Attributes
    ----------
    dtype : str
        the type as the file names it: "F32", "BF16", "I64", ...
    array : np.ndarray | StoredArray
        in the shape that the file gives, in memory or in the file
    """

    dtype: str
    array: np.ndarray | StoredArray


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The arrays of a file by name: `open_safetensors` without the metadata."""
    return open_safetensors(path)[0]


def open_safetensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays of a file by name, and its metadata. The header alone is read; the file is open until the last of them is gone.

    Raises
    ------
    CheckpointError
        where the file is not what its header says
    """
    file = RegularFile(path)
    if file.size < 8:
        raise CheckpointError(f"{path}: has {file.size} bytes; expected 8 for the header's length, and the header")
    length = int.from_bytes(file.read(8, 0, "the header's length").tobytes(), "little")
    most = min(file.size - 8, MAX_JSON_BYTES)
    if length > most:
        raise CheckpointError(f"{path}: its header takes {length} bytes; expected at most {most}")
    header = parse_json(file.read(length, 8, "the header").tobytes(), f"{path}: header")
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # null and absent are the same, as in the official library
        metadata = {}
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must be an object of strings, found {short(metadata)}")
    entries = sorted((_entry(path, name, entry) for name, entry in header.items()), key=lambda entry: entry[-2:])
    size, position, stored = file.size - 8 - length, 0, {}
    for name, dtype, shape, begin, end in entries:
        if begin != position or end > size:
            raise CheckpointError(
                f"{path}: tensor {short(name)} lies at {begin}..{end}; expected it to start at {position}, where the "
                f"one before it ends, and to end by {size}"
            )
        stored[name] = Stored(dtype, StoredArray(file, name, _DTYPES[dtype], tuple(shape), 8 + length + begin))
        position = end
    if position != size:
        raise CheckpointError(f"{path}: its tensors take {position} bytes, but {size} follow the header")
    return stored, metadata


def write_safetensors(path: Path, arrays: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file, each array at an address that suits its type.

    Arrays that lie in other files are read one at a time, those in memory are not copied.  Metadata beside the format
    of tensors, "pt", without which transformers reads no file.

    Raises
    ------
    OSError
    """
    arrays = {name: arrays[name] for name in layout({name: array.array.dtype for name, array in arrays.items()})}
    header = safetensors_header(
        {name: (dtype, array.shape) for name, (dtype, array) in arrays.items()},
        {"format": "pt", **(metadata or {})},
    )
    with path.open("wb") as file:
        file.write(header)
        file.flush()
        for dtype, array in arrays.values():
            file.write(np.ascontiguousarray(array, _DTYPES[dtype]).data)  # `tofile` would not say why it fails


def layout(dtypes: Mapping[str, np.dtype]) -> list[str]:
    """The names in an order in which each array lies at an address that suits its type: the widest first."""
    return sorted(dtypes, key=lambda name: (-dtypes[name].itemsize, name))


def safetensors_header(arrays: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """What a file begins with, of a length that 8 divides; the arrays' bytes follow one after another.

    Parameters
    ----------
    arrays : Mapping[str, tuple[str, tuple[int, ...]]]
        type and shape of each by name, in the order of the file: that of `layout`
    metadata : Mapping[str, str]
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, (dtype, shape) in arrays.items():
        end = position + math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (position, end)}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _entry(path: Path, name: str, entry: Any) -> tuple[str, str, list[int], int, int]:
    """name, dtype, shape, begin, end, where the size is what the shape and the dtype say."""

    def refuse(problem: str) -> NoReturn:
        raise CheckpointError(f"{path}: tensor {short(name)}{problem}")

    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        refuse(f" must be an object of dtype, shape and data_offsets, found {short(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in _DTYPES:
        refuse(f" has the dtype {short(dtype)}; expected one of {', '.join(_DTYPES)}")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        refuse(f": shape must be at most {_MAX_RANK} integers from 0, found {short(shape)}")
    itemsize = np.dtype(_DTYPES[dtype]).itemsize
    if math.prod(max(1, size) for size in shape) * itemsize >= 2**63:
        refuse(": its shape is too large to address")
    if not _naturals(offsets) or len(offsets) != 2:
        refuse(f": data_offsets must be two integers from 0, found {short(offsets)}")
    if offsets[1] - offsets[0] != math.prod(shape) * itemsize:
        refuse(
            f" takes {offsets[1] - offsets[0]} bytes; {dtype} of shape {tuple(shape)} takes "
            f"{math.prod(shape) * itemsize}"
        )
    return name, dtype, shape, *offsets


def _naturals(value: Any) -> bool:
    return type(value) is list and all(type(item) is int and 0 <= item < 2**63 for item in value)
