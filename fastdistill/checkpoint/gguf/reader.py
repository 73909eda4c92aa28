"""A GGUF file: a header (metadata, then each tensor's name, type, shape and offset) and the tensors' bytes.

The header is checked against the file's size before any of it is believed: nothing is allocated that the file is too
short to fill, and what a header may hold has a bound. Tensors are then read one at a time; a file cut short meanwhile
is an error.
"""

from __future__ import annotations

import math
import os
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastdistill.arguments import check_path
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.files import RegularFile
from fastdistill.messages import short

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# A header of 262,144 tokens and 514,906 merges, the largest one known, takes 20 MB; a string of Python takes some ten
# times the least that it takes in a file, a tensor's description more.
_MAX_HEADER, _MAX_STRINGS, _MAX_ENTRIES = 1 << 26, 1 << 21, 1 << 16
_MAX_PARTS = 1 << 10
_WINDOW = 1 << 20  # bytes of the header read at a time

F32, F16, Q4_0, Q4_1, Q5_0, Q8_0, IQ4_NL, BF16 = 0, 1, 2, 3, 6, 8, 20, 30
# Type -> (values in a block, bytes of a block).
BLOCKS = {
    F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q4_0: (32, 18), Q4_1: (32, 20), Q5_0: (32, 22), Q8_0: (32, 34), IQ4_NL: (32, 18),
}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """What the header says of one tensor; shape is (out, in): GGUF writes it in the other order.

    Attributes
    ----------
    name : str
        as in the file
    type : int
        GGML's number of the format
    shape : tuple[int, ...]
        of the numbers, not of the bytes
    offset : int
        bytes from the file's first one
    size : int
        how many bytes
    """

    name: str
    type: int
    shape: tuple[int, ...]
    offset: int
    size: int

    def pieces(self) -> list[GgufTensor]:
        """The tensors that this one stacks: one for each number of its first axis."""
        count, size = self.shape[0], self.size // self.shape[0]
        return [replace(self, shape=self.shape[1:], offset=self.offset + i * size, size=size) for i in range(count)]


class GgufFile:
    """An open GGUF file: `metadata` and `tensors` by name, both checked against the size of the file.

    Raises
    ------
    CheckpointError
    UnsupportedError
        for another version, byte order or tensor type
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._file = RegularFile(path)
        self.name = self._file.path
        self._position, self._window, self._window_start, self._strings = 0, b"", 0, 0
        self._places: dict[str, RegularFile] = {}  # of the tensors that lie in other parts
        self._read_header()
        self._window = b""

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, *_: object) -> None:
        for file in {self._file, *self._places.values()}:
            file.close()

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """The metadata value `key`, of type bool, int, float or str; without a default it must be there."""
        value = self.metadata.get(key, default)
        if value is ...:
            raise CheckpointError(f"{self.name}: metadata {key} is missing")
        if value is default:
            return value
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise CheckpointError(f"{self.name}: metadata {key} must be {kind.__name__}, got {short(value)}")
        return value

    def size_of(self, key: str, default: Any = ...) -> Any:
        """The metadata value `key`, which counts something: an int of at least 1, or the default."""
        value = self.get(key, int, default)
        if value is not None and value < 1:
            raise CheckpointError(f"{self.name}: metadata {key} must be at least 1, got {value}")
        return value

    def positive(self, key: str, default: Any = ...) -> Any:
        """The metadata value `key`, a positive float32, as its shortest decimal (1e-05, not 9.999999747e-06), or the default."""
        value = self.get(key, float, default)
        if value is None:
            return None
        with np.errstate(all="ignore"):
            rounded = np.float32(value)
        if not 0 < rounded < np.inf:
            raise CheckpointError(f"{self.name}: metadata {key} must be a positive float32, got {value}")
        return float(str(rounded))

    def read(self, tensor: GgufTensor) -> np.ndarray:
        """The bytes of a tensor, uint8 (..., bytes of a row)."""
        file = self._places.get(tensor.name, self._file)
        return file.read(tensor.size, tensor.offset, tensor.name).reshape(*tensor.shape[:-1], -1)

    def join(self, part: GgufFile) -> None:
        """Take in the tensors of another part, which stays open for as long as this one."""
        for name, tensor in part.tensors.items():
            if name in self.tensors:
                raise CheckpointError(f"{part.name}: tensor {short(name)} is in {self.name} or another part too")
            self.tensors[name], self._places[name] = tensor, part._file

    def _take(self, size: int, what: str) -> bytes:
        """The next bytes of the header."""
        begin, end = self._position, self._position + size
        if end > self._file.size:
            raise CheckpointError(
                f"{self.name}: {what} takes {size} bytes at offset {begin}, but the file has {self._file.size}"
            )
        if end > _MAX_HEADER:
            raise CheckpointError(
                f"{self.name}: {what} takes {size} bytes at offset {begin}; a header has at most {_MAX_HEADER}"
            )
        if end > self._window_start + len(self._window):
            length = min(max(size, _WINDOW), self._file.size - begin)
            self._window, self._window_start = self._file.read(length, begin, what).tobytes(), begin
        self._position = end
        return self._window[begin - self._window_start : end - self._window_start]

    def _number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code), what))[0]

    def _string(self, what: str) -> str:
        try:
            return self._take(self._number("Q", what), what).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.name}: {what} is not UTF-8: {error}") from error

    def _value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], what)
        if kind == _STRING:
            return self._string(what)
        if kind != _ARRAY:
            raise CheckpointError(f"{self.name}: {what} has the unknown value type {kind}")
        kind, count = self._number("I", what), self._number("Q", what)
        if kind == _STRING:
            self._strings += count
            if self._strings > _MAX_STRINGS:
                raise CheckpointError(f"{self.name}: {what} has {count} strings; all have at most {_MAX_STRINGS}")
            return [self._string(what) for _ in range(count)]
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.name}: {what} is an array of the unknown value type {kind}")
        dtype = np.dtype(_SCALARS[kind]).newbyteorder("<")
        return np.frombuffer(self._take(count * dtype.itemsize, what), dtype)

    def _read_header(self) -> None:
        if (magic := self._take(4, "the magic number")) != b"GGUF":
            raise CheckpointError(f"{self.name}: is not a GGUF file: it starts with {short(magic)}, not b'GGUF'")
        if (version := self._number("I", "the version")) not in (2, 3):
            raise UnsupportedError(f"{self.name}: GGUF version {version:#x}; 2 and 3 (little-endian) can be read")
        tensors, pairs = self._number("Q", "the tensor count"), self._number("Q", "the metadata count")
        if tensors > _MAX_ENTRIES or pairs > _MAX_ENTRIES:
            raise CheckpointError(
                f"{self.name}: says that it has {tensors} tensors and {pairs} metadata; expected at most {_MAX_ENTRIES}"
            )
        for _ in range(pairs):
            key = self._string("a metadata key")
            if key in self.metadata:
                raise CheckpointError(f"{self.name}: metadata {short(key)} comes twice")
            kind = self._number("I", f"metadata {short(key)}")
            self.metadata[key] = self._value(kind, f"metadata {short(key)}")
        for _ in range(tensors):
            tensor = self._read_tensor()
            if tensor.name in self.tensors:
                raise CheckpointError(f"{self.name}: tensor {short(tensor.name)} comes twice")
            self.tensors[tensor.name] = tensor
        self._place_tensors()

    def _read_tensor(self) -> GgufTensor:
        name = self._string("a tensor name")
        what = f"tensor {short(name)}"
        rank = self._number("I", what)
        if not 1 <= rank <= 4:
            raise CheckpointError(f"{self.name}: {what} must have 1 to 4 dimensions, got {rank}")
        shape = tuple(self._number("Q", what) for _ in range(rank))[::-1]
        if 0 in shape:
            raise CheckpointError(f"{self.name}: {what} is empty: its shape is {shape}")
        kind, offset = self._number("I", what), self._number("Q", what)
        values, size = BLOCKS.get(kind) or _other_block(kind, f"{self.name}: {what}")
        if shape[-1] % values:
            raise CheckpointError(f"{self.name}: {what} has rows of {shape[-1]} values, not whole blocks of {values}")
        return GgufTensor(name, kind, shape, offset, math.prod(shape) // values * size)

    def _place_tensors(self) -> None:
        """Turn the offsets into places in the file; every tensor inside it, no two over the same bytes."""
        alignment = self.get("general.alignment", int, 32)
        if alignment < 1 or alignment & (alignment - 1):
            raise CheckpointError(f"{self.name}: general.alignment must be a power of two, got {alignment}")
        start = end = -(-self._position // alignment) * alignment
        for tensor in sorted(self.tensors.values(), key=lambda tensor: (tensor.offset, tensor.size)):
            placed = replace(tensor, offset=start + tensor.offset)
            if tensor.offset % alignment or placed.offset < end or placed.offset + tensor.size > self._file.size:
                raise CheckpointError(
                    f"{self.name}: tensor {short(tensor.name)} has {tensor.size} bytes at offset {placed.offset}; "
                    f"expected a multiple of {alignment} after {start}, from {end} to {self._file.size}"
                )
            end = placed.offset + tensor.size
            self.tensors[tensor.name] = placed


def open_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """The file, or, of a model in parts, the first of them with the tensors of all; they lie beside each other.

    Raises
    ------
    CheckpointError
        for a part that is missing or no part of this model, and what GgufFile raises
    """
    path = check_path("path", path)
    file = GgufFile(path)
    count = file.get("split.count", int, 1)
    if count == 1:
        return file
    folder, name = path.parent, path.name
    stem = re.fullmatch(rf"(.*)-\d{{5}}-of-{count:05}\.gguf", name)
    if not 1 <= count <= _MAX_PARTS or stem is None:
        raise CheckpointError(
            f"{file.name}: is one of {count} parts of a model; expected 1 to {_MAX_PARTS}, and a name that ends in "
            f"-00001-of-{count:05}.gguf or another number"
        )
    whole: GgufFile | None = None
    for number in range(count):
        other = f"{stem[1]}-{number + 1:05}-of-{count:05}.gguf"
        if not os.path.lexists(folder / other):
            shown = other if other.isprintable() else short(other)
            raise CheckpointError(f"{file.name}: is one of {count} parts of a model; {shown} is not beside it")
        part = file if other == name else GgufFile(folder / other)
        found = part.get("split.no", int), part.get("split.count", int)
        if found != (number, count):
            raise CheckpointError(f"{part.name}: is part {found[0] + 1} of {found[1]}, not {number + 1} of {count}")
        if whole is None:
            whole = part
        else:
            whole.join(part)
    assert whole is not None
    if (total := whole.get("split.tensors.count", int, len(whole.tensors))) != len(whole.tensors):
        raise CheckpointError(f"{whole.name}: its {count} parts have {len(whole.tensors)} tensors; expected {total}")
    return whole


def gguf_package() -> Any:
    """The package `gguf`, which knows every other type of tensor."""
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise UnsupportedError(
            f'this type of tensor needs the package gguf ({error}): pip install "fastdistill[demo]"'
        ) from error
    return gguf


def _other_block(kind: int, what: str) -> tuple[int, int]:
    gguf = gguf_package()
    try:
        return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise UnsupportedError(f"{what} has the type {kind}, which the package gguf does not know") from None
