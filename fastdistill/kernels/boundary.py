"""The door to C: the only file that makes pointers."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.errors import ArgumentError, FastDistillError, NotBuiltError, NotFiniteError

try:
    from fastdistill import _native
except ImportError as error:
    _root = Path(__file__).resolve().parents[2]
    if not (_root / "csrc").is_dir():
        raise
    raise NotBuiltError(
        f"fastdistill in {_root} is a checkout whose C has not been built, or not for this Python: {error}; "
        f'pip install -e "{_root}" builds it there. Python looks in the current folder before it looks at what is installed.'
    ) from None

ffi: Any = _native.ffi  # type: ignore[attr-defined]
lib: Any = _native.lib  # type: ignore[attr-defined]

DRAW = np.dtype(
    [
        ("seed", np.uint64),
        ("reached", np.uint64),
        ("sequence", np.uint32),
        ("round", np.uint32),
        ("temperature", np.float32),
    ],
    align=True,
)  # struct fd_draw
_C_TYPES = {
    np.dtype(np.float64): "double[]",
    np.dtype(np.float32): "float[]",
    np.dtype(np.float16): "uint16_t[]",
    np.dtype(np.uint16): "uint16_t[]",
    np.dtype(np.int8): "int8_t[]",
    np.dtype(np.uint8): "uint8_t[]",
    np.dtype(np.int32): "int32_t[]",
    np.dtype(np.uint32): "uint32_t[]",
    np.dtype(np.int64): "int64_t[]",
    np.dtype(np.uint64): "uint64_t[]",
    DRAW: "struct fd_draw[]",
}


def pointer(array: np.ndarray | None) -> Any:
    """A C pointer to the array's first element; keep the array alive beside it.  None is NULL."""
    if array is None:
        return ffi.NULL
    return ffi.from_buffer(_C_TYPES[array.dtype], array)


def aligned_bytes(size: int) -> np.ndarray:
    """uint8 (size,), zeros, beginning on a cache line; pages are only taken when written."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def mapped_bytes(size: int) -> np.ndarray:
    """uint8 (size,), zeros, beginning on a page; small pages, so that only what is written takes memory.  A fork gets its own.

    raises  MemoryError
    """
    try:
        mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise MemoryError(f"no memory for {size} bytes") from None
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            mapped.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(mapped, np.uint8)


def check_status(where: str, status: int) -> None:
    """Turn the status of a C call into an error."""
    if status == lib.FD_OK:
        return
    if status == lib.FD_NOT_FINITE:
        raise NotFiniteError(f"{where}: a row holds a NaN or an infinity")
    if status == lib.FD_NO_MEMORY:
        raise MemoryError(f"{where}: out of memory")
    if status == lib.FD_NOTHING_ALLOWED:
        raise ArgumentError(f"{where}: every token is banned")
    raise FastDistillError(f"{where}: unknown status {status}")
