"""How every public argument is checked: each check takes the argument's name and gives the value as the code wants it.

All raise ArgumentError: what must hold, and what was found (`messages.short`).
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.errors import ArgumentError
from fastdistill.messages import short, suggestion

MOST_PATH_BYTES = 4095  # PATH_MAX without its zero
MOST_ENTRIES = 1 << 28  # of a range that becomes an array: more than any text or vocabulary has, 2 GB


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
    array = _any_array(name, list(values) if isinstance(values, (set, frozenset)) else values)
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
    array = np.ascontiguousarray(array, np.int32)
    return np.sort(array) if isinstance(values, (set, frozenset)) else array


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


def _any_array(name: str, values: Any) -> np.ndarray:
    """np.asarray of a sequence; an array of None where that fails, or would take all memory there is."""
    if isinstance(values, np.ma.MaskedArray):
        raise ArgumentError(f"{name} must not be a masked array: its mask would be lost; pass {name}.filled(value)")
    try:
        if isinstance(values, range) and len(values) > MOST_ENTRIES:
            return np.array([None])
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        return np.array([None])


def check_numbers(name: str, values: Any, what: str = "numbers", *, empty: bool = False) -> np.ndarray:
    """Numbers of any shape, () for a single one, as float64; complex ones, text, ragged lists, and unless `empty` none are refused."""
    array = _any_array(name, values)
    if (array.size == 0 and not empty) or array.dtype.kind not in "biuf":
        raise ArgumentError(f"{name} must be {what}, got {short(values)}")
    return array.astype(np.float64)


def check_has(name: str, value: Any, attributes: Sequence[str], what: str) -> None:
    """Refuse what lacks one of these attributes, and a class that only its objects have them of."""
    missing = [attribute for attribute in attributes if not hasattr(value, attribute)]
    if missing or isinstance(value, type):
        raise ArgumentError(f"{name} must be {what}, got {short(value)}")


def check_instance(name: str, value: Any, kind: type) -> None:
    """Refuse what is no object of this class."""
    if not isinstance(value, kind):
        raise ArgumentError(
            f"{name} must be a{'n' * (kind.__name__[0] in 'AEIOU')} {kind.__name__}, got {short(value)}"
        )


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """The value, which is one of these words."""
    if not isinstance(value, str) or value not in choices:
        meant = suggestion(value, choices) if isinstance(value, str) else ""
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}, got {short(value)}{meant}")
    return value


def check_text(name: str, value: Any) -> str:
    """The value, which is a str that UTF-8 can spell: without lone surrogates."""
    if not isinstance(value, str):
        raise ArgumentError(f"{name} must be a str, got {short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{name} must be Unicode without lone surrogates; there is one at {error.start}") from None
    return value


def check_callable(name: str, value: Any, what: str = "callable") -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise ArgumentError(f"{name} must be {what}, got {short(value)}")


def check_path(name: str, value: Any) -> Path:
    """The value as a Path: a str or a PathLike of one, of a length and of characters that a file system knows."""
    try:
        path = os.fspath(value)
        encoded = os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        path = None
    if not isinstance(path, str) or b"\0" in encoded or len(encoded) > MOST_PATH_BYTES:
        raise ArgumentError(f"{name} must be a path, got {short(value)}")
    return Path(path)


def check_mapping(name: str, value: Any, what: str) -> Mapping[Any, Any]:
    """The value, which is a mapping of `what`."""
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{name} must map {what}, got {short(value)}")
    return value
