"""The safetensors format: the header's length in 8 bytes, a JSON header, the arrays' bytes one after another.

Read by mapping the file, each array a view of it, after every statement of the header has been checked against the
file's size. Written here too: the library's function that can write bfloat16 without a framework changed its arguments
between versions.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdistill.errors import CheckpointError
from fastdistill.files import MAX_JSON_BYTES, parse_json
from fastdistill.messages import short

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip
_MAX_RANK = 8


class Stored(NamedTuple):
    """An array under its type in the file: NumPy has no bfloat16 and no float8, whose bits come as uint16 and uint8."""

    dtype: str
    array: np.ndarray


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The arrays of a file by name, read-only views of its mapping.

    Nothing is read before it is used. The file stays mapped while a view lives, and must not be cut short meanwhile.
    Where an array's place in the file does not suit its type (C relies on that), it is a copy.

    Raises CheckpointError where the file is not what its header says.
    """
    mapped = _map(path)
    if len(mapped) < 8:
        raise CheckpointError(f"{path}: has {len(mapped)} bytes; expected 8 for the header's length, and the header")
    start = 8 + int.from_bytes(mapped[:8], "little")
    if start > min(len(mapped), 8 + MAX_JSON_BYTES):
        raise CheckpointError(
            f"{path}: its header takes {start - 8} bytes; expected at most {min(len(mapped) - 8, MAX_JSON_BYTES)}"
        )
    header = parse_json(mapped[8:start], f"{path}: header")
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # null and absent are the same, as in the official library
        metadata = {}
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must be an object of strings, found {short(metadata)}")
    entries = sorted((_entry(path, name, entry) for name, entry in header.items()), key=lambda entry: entry[-2:])
    body, position, stored = np.frombuffer(mapped, np.uint8, offset=start), 0, {}
    for name, dtype, shape, begin, end in entries:
        if begin != position or end > len(body):
            raise CheckpointError(
                f"{path}: tensor {short(name)} lies at {begin}..{end}; expected it to start at {position}, where the "
                f"one before it ends, and to end by {len(body)}"
            )
        array = body[begin:end].view(_DTYPES[dtype]).reshape(shape)
        stored[name] = Stored(dtype, array if array.flags.aligned else array.copy())
        position = end
    if position != len(body):
        raise CheckpointError(f"{path}: its tensors take {position} bytes, but {len(body)} follow the header")
    return stored


def write_safetensors(path: Path, arrays: Mapping[str, Stored]) -> None:
    """Write a file, each array at an address that suits its type. Raises OSError."""
    arrays = dict(sorted(arrays.items(), key=lambda item: (-item[1].array.itemsize, item[0])))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers reads no file without it
    position = 0
    for name, (dtype, array) in arrays.items():
        end = position + array.nbytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (position, end)}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        for dtype, array in arrays.values():
            array.astype(_DTYPES[dtype], copy=False).tofile(file)


def _map(path: Path) -> mmap.mmap | bytes:
    if not path.is_file():  # opening a pipe would wait for its writer
        raise CheckpointError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # nothing to map in an empty file
        return b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def _entry(path: Path, name: str, entry: Any) -> tuple[str, str, list[int], int, int]:
    """name, dtype, shape, begin, end, where the size is what the shape and the dtype say."""
    what = f"{path}: tensor {short(name)}"
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{what} must be an object of dtype, shape and data_offsets, found {short(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in _DTYPES:
        raise CheckpointError(f"{what} has the dtype {short(dtype)}; expected one of {', '.join(_DTYPES)}")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        raise CheckpointError(f"{what}: shape must be at most {_MAX_RANK} integers from 0, found {short(shape)}")
    itemsize = np.dtype(_DTYPES[dtype]).itemsize
    if math.prod(max(1, size) for size in shape) * itemsize >= 2**63:
        raise CheckpointError(f"{what}: its shape is too large to address")
    if not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{what}: data_offsets must be two integers from 0, found {short(offsets)}")
    if offsets[1] - offsets[0] != math.prod(shape) * itemsize:
        raise CheckpointError(
            f"{what} takes {offsets[1] - offsets[0]} bytes; {dtype} of shape {tuple(shape)} takes "
            f"{math.prod(shape) * itemsize}"
        )
    return name, dtype, shape, *offsets


def _naturals(value: Any) -> bool:
    return type(value) is list and all(type(item) is int and 0 <= item < 2**63 for item in value)
