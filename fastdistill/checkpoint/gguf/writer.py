"""A GGUF file, version 3, written: header, metadata, descriptions of tensors, and their bytes as they come."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


class Described(NamedTuple):
    """What the header says of a tensor.

    Attributes
    ----------
    name : str
        as in the file
    type : int
        GGML's number of the format
    shape : tuple[int, ...]
        outputs first
    size : int
        how many bytes
    """

    name: str
    type: int
    shape: tuple[int, ...]
    size: int


def write_gguf(
    path: Path, metadata: Mapping[str, Any], tensors: list[Described], pieces: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write a file.

    Parameters
    ----------
    path : Path
        of the file
    metadata : Mapping[str, Any]
        bool, int (uint32), float (float32), str; lists of str; arrays int32 and float32
    tensors : list[Described]
        in the order of their bytes
    pieces : Iterable[tuple[str, np.ndarray]]
        (tensor, bytes of it), each tensor's in a row, in the same order

    Raises
    ------
    OSError
    """
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for tensor in tensors:
            file.write(_string(tensor.name) + struct.pack("<I", len(tensor.shape)))
            file.write(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape[::-1]))
            file.write(struct.pack("<IQ", tensor.type, offset))
            offset += -(-tensor.size // _ALIGNMENT) * _ALIGNMENT
        last = ""
        for name, data in pieces:
            if name != last:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                last = name
            file.write(data.data)
        file.write(bytes(-file.tell() % _ALIGNMENT))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))
    kind = {"int32": _INT32, "float32": _FLOAT32}[value.dtype.name]
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + value.astype(value.dtype.newbyteorder("<")).tobytes()
