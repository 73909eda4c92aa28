"""The door to C: the only file that makes pointers, and the checks that every wrapper makes before it does."""

from __future__ import annotations

import mmap
import operator
from contextlib import suppress
from typing import Any

import numpy as np

from fastdistill import _native
from fastdistill.errors import ArgumentError, FastDistillError, NotFiniteError

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


def check_array(name: str, array: Any, dtype: type, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """Refuse anything but a C-contiguous array of exactly this dtype and shape (None: any size); its shape."""
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"{name} must be a NumPy array of {np.dtype(dtype).name}, got {type(array).__name__}")
    if array.dtype != dtype:
        raise ArgumentError(f"{name} must have dtype {np.dtype(dtype).name}, got {array.dtype.name}")
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        wanted = (
            "("
            + ", ".join("any" if size is None else str(size) for size in shape)
            + ("," if len(shape) == 1 else "")
            + ")"
        )
        raise ArgumentError(f"{name} must have shape {wanted}, got {array.shape}")
    if not array.flags.c_contiguous:
        raise ArgumentError(f"{name} must be C-contiguous; pass np.ascontiguousarray({name})")
    return array.shape


def check_integer(name: str, value: Any, minimum: int, maximum: int) -> int:
    """The value as an int within [minimum, maximum]; booleans and floats are refused."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} must be an integer, got {value!r}")
    if not minimum <= number <= maximum:
        raise ArgumentError(f"{name} must lie in {minimum}..{maximum}, got {number}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """The value, which is True or False and nothing like it."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, got {value!r:.80}")
    return value


def check_integers(name: str, values: Any, minimum: int, maximum: int, *, empty: bool = False) -> np.ndarray:
    """A sequence of integers as int32 (n,), each within [minimum, maximum]; n >= 1 unless `empty`."""
    try:
        array = np.asarray(sorted(values) if isinstance(values, (set, frozenset)) else values)
    except (ValueError, TypeError, OverflowError):
        array = np.empty((0, 0))
    if (
        isinstance(values, (list, tuple, range, set, frozenset, np.ndarray))
        and array.ndim == 1
        and len(array) == 0
        and empty
    ):
        return np.empty(0, np.int32)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise ArgumentError(f"{name} must be a {'' if empty else 'non-empty '}sequence of integers, got {values!r:.80}")
    if array.min() < minimum or array.max() > maximum:
        index = int(np.argmax((array < minimum) | (array > maximum)))
        raise ArgumentError(f"{name}[{index}] must lie in {minimum}..{maximum}, got {array[index]}")
    return np.ascontiguousarray(array, np.int32)


def check_number(name: str, value: Any, minimum: float, maximum: float) -> float:
    """The value as a float within [minimum, maximum]; NaN, booleans and text are refused."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        number = float("inf") if value > 0 else float("-inf")
    if not minimum <= number <= maximum:
        raise ArgumentError(f"{name} must lie in {minimum:g}..{maximum:g}, got {number:g}")
    return number


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
