"""How every public argument is checked: each check takes the argument's name and gives the value as the code wants it.

All raise ArgumentError: what must hold, and what was found (`messages.short`).
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from fastdistill.errors import ArgumentError
from fastdistill.messages import short


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
        raise ArgumentError(f"{name} must be an integer, got {short(value)}")
    if not minimum <= number <= maximum:
        raise ArgumentError(f"{name} must lie in {minimum}..{maximum}, got {short(number)}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """The value, which is True or False and nothing like it."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, got {short(value)}")
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
        raise ArgumentError(
            f"{name} must be a {'' if empty else 'non-empty '}sequence of integers, got {short(values)}"
        )
    if array.min() < minimum or array.max() > maximum:
        index = int(np.argmax((array < minimum) | (array > maximum)))
        raise ArgumentError(f"{name}[{index}] must lie in {minimum}..{maximum}, got {array[index]}")
    return np.ascontiguousarray(array, np.int32)


def check_number(name: str, value: Any, minimum: float, maximum: float) -> float:
    """The value as a float within [minimum, maximum]; NaN, booleans and text are refused."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"{name} must be a number, got {short(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        number = float("inf") if value > 0 else float("-inf")
    if not minimum <= number <= maximum:
        raise ArgumentError(f"{name} must lie in {minimum:g}..{maximum:g}, got {number:g}")
    return number
