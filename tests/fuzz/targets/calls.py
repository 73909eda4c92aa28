"""Every public kernel and function over arrays: its valid call, of which bytes change arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from tests.fuzz.law import Broken
from tests.kernels.calls import CALLS, ODD, WRITTEN, leaves, made, replaced

NAMES = sorted(CALLS)
LARGE = {2**31 - 1, 2**31, 2**32}  # iterations without end
THINGS = [odd for odd in ODD if not (isinstance(odd, int) and not isinstance(odd, bool) and odd in LARGE)]
DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    np.int32,
    np.int64,
    np.int16,
    np.uint8,
    np.uint32,
    np.uint64,
    np.bool_,
    np.complex64,
    object,
    ">f4",
    ">i4",
    "S3",
]
SPECIAL = [0, 1, -1, 2, 3, 127, 255, 2**31 - 1, -(2**31), 1e30, -1e30, 1e-40, np.nan, np.inf, -np.inf, 0.5]
GUARD = 64
os.environ["FASTDISTILL_THREADS"] = "2"


class Input:
    """Bytes as choices; zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def choice(self, things: Any) -> Any:
        return things[(self.byte() + (self.byte() << 8 if len(things) > 256 else 0)) % len(things)]

    def number(self) -> Any:
        kind = self.byte()
        small = self.byte() - 128
        return (
            SPECIAL[small % len(SPECIAL)]
            if kind < 64
            else small
            if kind < 160
            else small / 8
            if kind < 250
            else small * 257
        )

    def left(self) -> bool:
        return self._at < len(self._data)


def run(data: bytes) -> None:
    source = Input(data)
    name = source.choice(NAMES)
    function, arguments = CALLS[name]()
    guards: list[np.ndarray] = []
    for _ in range(4):
        if not source.left():
            break
        with suppress(ValueError, TypeError, OverflowError, RuntimeError):  # what has no such form stays as it is
            arguments = changed_call(source, arguments, guards)
    kept = {
        path: np.asarray(array).tobytes()
        for path, array in leaves(arguments)
        if path[0] not in WRITTEN and array.dtype != object
    }
    overlapping = {path for path, array in leaves(arguments) if path[0] in WRITTEN}
    outcome, what = made(function, arguments)
    if outcome == "failed":
        raise Broken(f"{name}({describe(arguments)}): {what}")
    for guard in guards:
        if (guard[:GUARD] != 0xA5).any() or (guard[-GUARD:] != 0xA5).any():
            raise Broken(f"{name}({describe(arguments)}): wrote beside an array")
    for path, array in leaves(arguments):
        apart = not any(np.shares_memory(array, other) for place, other in leaves(arguments) if place in overlapping)
        if path in kept and apart and np.asarray(array).tobytes() != kept[path]:
            raise Broken(f"{name}({describe(arguments)}): changed its argument {'.'.join(map(str, path))}")


def changed_call(source: Input, arguments: dict[str, Any], guards: list[np.ndarray]) -> dict[str, Any]:
    """One argument, or an array within one, replaced."""
    arrays = list(leaves(arguments))
    how = source.byte() % 16
    if not arguments:
        return arguments
    if how < 3 or not arrays:
        return arguments | {source.choice(list(arguments)): source.choice(THINGS)}
    if how < 5:
        return arguments | {source.choice(list(arguments)): source.number()}
    path, array = source.choice(arrays)
    if how < 8:
        new = guarded(array, guards)
        if new.size and new.dtype.kind in "biuf":
            with np.errstate(all="ignore"):
                for _ in range(1 + source.byte() % 8):
                    value = np.float64(source.number())
                    if new.dtype.kind in "iu" and not np.isfinite(value):
                        value = np.float64(3)
                    new.reshape(-1)[source.byte() % new.size] = value.astype(new.dtype)
    elif how < 10:
        with np.errstate(all="ignore"):
            new = array.astype(source.choice(DTYPES))
    elif how < 12:
        shape = tuple(source.byte() % 6 for _ in range(source.byte() % 5))
        new = guarded(np.resize(array, shape) if array.size else np.zeros(shape, array.dtype), guards)
    elif how == 12:
        new = strided(source, array)
    elif how == 13:
        return in_one_memory(source, arguments, arrays)
    elif how == 14:
        new = array.copy()
        new.flags.writeable = False
    else:
        new = guarded(array, guards, 1 + source.byte() % 7)
    return replaced(arguments, path, new)


def guarded(array: np.ndarray, guards: list[np.ndarray], offset: int = 0) -> np.ndarray:
    """A copy between bytes that nobody may change."""
    if array.dtype == object:
        return array.copy()
    memory = np.full(array.nbytes + 2 * GUARD + offset, 0xA5, np.uint8)
    part = memory[GUARD + offset : GUARD + offset + array.nbytes].view(array.dtype).reshape(array.shape)
    part[...] = array
    if not offset:
        guards.append(memory)
    return part


def strided(source: Input, array: np.ndarray) -> np.ndarray:
    """The same numbers, or some of them, in another order of memory."""
    forms = (lambda a: a.T, lambda a: a[::-1], lambda a: a[..., ::2], lambda a: np.repeat(a, 2, -1)[..., ::2], lambda a: np.broadcast_to(a[:1], a.shape),
             lambda a: a[..., None], lambda a: a[None])  # fmt: skip
    return source.choice(forms)(array) if array.ndim else array


def in_one_memory(source: Input, arguments: dict[str, Any], arrays: list[Any]) -> dict[str, Any]:
    """Two arrays of a call over the same bytes."""
    (one_path, one), (two_path, two) = source.choice(arrays), source.choice(arrays)
    if one_path == two_path or object in (one.dtype, two.dtype):
        return arguments
    start = source.byte() % 9 * 8
    memory = np.zeros(max(one.nbytes, two.nbytes + start) + 64, np.uint8)
    for array, begin, path in ((one, 0, one_path), (two, start, two_path)):
        part = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        part[...] = array
        arguments = replaced(arguments, path, part)
    return arguments


def describe(arguments: dict[str, Any]) -> str:
    def one(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"{value.dtype} {value.shape} strides {value.strides} " + (
                repr(value.tolist()) if value.size < 64 else "..."
            )
        return f"{type(value).__name__} {safe(value)}"

    return ", ".join(f"{name}={one(value)[:300]}" for name, value in arguments.items())


def safe(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(error).__name__}>"


def seeds() -> Iterator[bytes]:
    for number in range(len(NAMES)):
        yield bytes([number])
        for how in range(16):
            yield bytes([number, how, number, how, how, number * 7 % 256])
