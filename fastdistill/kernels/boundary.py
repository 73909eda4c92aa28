"""The door to C: the only file that makes pointers, and the last that looks at what they point to.

`fastdistill.arguments` checks arguments by name, with messages. What is here cannot be forgotten: a pointer is to
memory that may be written, unless it is `const`, and to nothing that C would misread. `written` says which of a
caller's arrays a call writes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.errors import ArgumentError, BusyError, FastDistillError, NotBuiltError, NotFiniteError
from fastdistill.platform import anonymous_map, in_forked_child

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
    np.dtype(np.bool_): "int8_t[]",
    np.dtype(np.int8): "int8_t[]",
    np.dtype(np.uint8): "uint8_t[]",
    np.dtype(np.int32): "int32_t[]",
    np.dtype(np.uint32): "uint32_t[]",
    np.dtype(np.int64): "int64_t[]",
    np.dtype(np.uint64): "uint64_t[]",
    DRAW: "struct fd_draw[]",
}


def pointer(array: np.ndarray | None, writable: bool = True) -> Any:
    """A C pointer to the array's first element; keep the array alive beside it. None is NULL.

    Raises
    ------
    ArgumentError
        where C would read something else than the array holds, or write where nobody may
    """
    if array is None:
        return ffi.NULL
    try:
        held = ffi.from_buffer(_C_TYPES[array.dtype], array, writable)
    except (AttributeError, KeyError, ValueError, BufferError, TypeError):
        _refuse_memory(array)
    if not array.flags.aligned:
        _refuse_memory(array)
    return held


def const(array: np.ndarray | None) -> Any:
    """A C pointer through which nothing is written: the array may be read-only."""
    return pointer(array, False)


def bits(array: np.ndarray) -> int:
    """Of a real of an array: 32 or 64."""
    return array.dtype.itemsize * 8


def _refuse_memory(array: Any) -> NoReturn:
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"memory for C must be a NumPy array, got {type(array).__name__}")
    for fits, what in (
        (array.dtype in _C_TYPES, "have a dtype that C knows, in this machine's byte order"),
        (array.flags.c_contiguous, "be C-contiguous"),
        (array.flags.aligned, "be aligned"),
    ):
        if not fits:
            raise ArgumentError(f"memory for C must {what}")
    raise ArgumentError("memory that C writes must be writable, got a read-only array")


Span = tuple[int, int]  # where memory begins, and where it has ended
_ADDRESS = ffi.typeof("uintptr_t")
_BEING_WRITTEN: dict[int, list[Span]] = {}  # by calls that have not ended, by who entered it
_ENTERING = threading.RLock()  # a signal's handler may call a kernel too


def _span(array: np.ndarray) -> Span:
    begin = int(ffi.cast(_ADDRESS, ffi.from_buffer(array)))
    return begin, begin + array.nbytes


def _forget_other_threads() -> None:
    global _ENTERING
    _BEING_WRITTEN.clear()
    _ENTERING = threading.RLock()


in_forked_child(_forget_other_threads)


class written:
    """A block in which C writes memory of a caller's: apart from all else that the call is given, and its own while it lasts.

    Parameters
    ----------
    writes : Mapping[str, np.ndarray | None]
        by name, None where the caller gave none
    reads : Mapping[str, np.ndarray | None]
        by name, the arrays that C reads meanwhile, contiguous; one that is the very memory written may be left out

    Raises
    ------
    ArgumentError
        where two of them overlap, of which one is written
    BusyError
        where another call is writing there
    """

    __slots__ = ("_spans",)

    def __init__(self, writes: Mapping[str, np.ndarray | None], reads: Mapping[str, np.ndarray | None]) -> None:
        self._spans = [(name, *_span(array)) for name, array in writes.items() if array is not None]
        if not self._spans:
            return
        spans = self._spans + [(name, *_span(array)) for name, array in reads.items() if array is not None]
        for place, (name, begin, end) in enumerate(self._spans):
            for other, first, last in spans[place + 1 :]:
                if begin < last and first < end:
                    raise ArgumentError(f"{name} must not overlap {other}: pass memory of its own")

    def __enter__(self) -> None:
        if not self._spans:
            return
        with _ENTERING:
            for others in _BEING_WRITTEN.values():
                for name, begin, end in self._spans:
                    if any(begin < last and first < end for first, last in others):
                        raise BusyError(f"{name} is being written by another call: give each thread memory of its own")
            _BEING_WRITTEN[id(self)] = [(begin, end) for _, begin, end in self._spans]

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._spans:
            with _ENTERING:
                _BEING_WRITTEN.pop(id(self), None)


def same_memory(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both begin at one place and have one shape and dtype: each element is the other's."""
    return one.dtype == other.dtype and one.shape == other.shape and pointer(one, False) == pointer(other, False)


def check_workspace(workspace: Any, needed: int) -> np.ndarray:
    """A caller's work space for C: uint8, of so many bytes at least, beginning where a double may."""
    (size,) = check_array("workspace", workspace, np.uint8, ("bytes",), written=True)
    if size < needed:
        raise ArgumentError(f"workspace must have at least {needed} bytes, got {size}")
    if size >= 8 and not workspace[:8].view(np.uint64).flags.aligned:
        raise ArgumentError(
            "workspace must begin on a multiple of 8 bytes: pass a new array, or a slice from such a place"
        )
    return workspace


def aligned_bytes(size: int) -> np.ndarray:
    """uint8 (size,), zeros, beginning on a cache line; pages are only taken when written."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def mapped_bytes(size: int, huge: bool = True) -> np.ndarray:
    """uint8 (size,), zeros, beginning on a page; taken as it is written, in huge pages where the system has some to give.

    malloc would clear all of it at once, where it has such memory left from something else.

    A fork gets its own.

    Raises
    ------
    MemoryError
    """
    try:
        return np.frombuffer(anonymous_map(size, huge), np.uint8)
    except (OSError, OverflowError):
        raise MemoryError(f"no memory for {size} bytes") from None


def refuse_rows(where: str, logits: np.ndarray, bans: bool = True) -> NoReturn:
    """Raise for the first row (..., vocab) that C found to be no logits: NaN, +inf, or nothing but -inf.  Without bans, any -inf."""
    rows = logits.reshape(-1, logits.shape[-1])
    for row, values in enumerate(rows):
        wrong = ~(values < np.inf) if bans else ~np.isfinite(values)
        if wrong.any() or not (values > -np.inf).any():
            at = ", ".join(str(int(index)) for index in np.unravel_index(row, logits.shape[:-1]))
            here = f"{where}: row {at}" if logits.ndim == 2 else f"{where}: row ({at})" if logits.ndim > 2 else where
            if not wrong.any():
                raise NotFiniteError(f"{here}: every token is banned: it holds nothing but -inf")
            column = int(wrong.argmax())
            raise NotFiniteError(f"{here}: a row holds a NaN or an infinity: {values[column]} in column {column}")
    raise NotFiniteError(f"{where}: a row holds a NaN or an infinity")


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
