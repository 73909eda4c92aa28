"""How every public argument is checked: each check takes the argument's name and gives the value as the code wants it.

All raise ArgumentError: what must hold, and what was found (`messages.short`). Arrays come in by one of three doors:

- big: What has an entry for each token of a vocabulary, each coordinate or each weight (logits, laws, points, costs):
  taken as it is, so it must have the dtype, in this machine's byte order, C-contiguous and aligned. `check_array`
  refuses all else and names the call that makes it so: nobody pays for a copy unasked.
- small: What has an entry a row, node, token or position (positions, parents, draws, scores of nodes): `as_array` takes
  any NumPy array, list or tuple and converts it, where every element stays what it is; integers that do not fit, and
  fractions that would be rounded, are refused by name.
- written: What a call writes (`out=`, `workspace=`): `check_array(..., written=True)`, the rules of big, and writable.

Masked arrays and other subclasses are refused at each, since what they add would be lost; memory-mapped files are
arrays.
"""

from __future__ import annotations

import operator
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, NoReturn

import numpy as np

from fastdistill.errors import ArgumentError
from fastdistill.messages import short, suggestion

MOST_PATH_BYTES = 4095  # PATH_MAX without its zero
MOST_ENTRIES = 1 << 28  # of a range that becomes an array: more than any text or vocabulary has, 2 GB

REAL = (np.float32, np.float64)
_LAYOUT: Any = ("C", "A")  # C-contiguous, aligned
Axis = int | str | None | EllipsisType  # a size, or the name of an axis of any size; ... stands first, for any axes


def check_array(
    name: str, array: Any, dtype: Any, shape: tuple[Axis, ...], *, like: str = "", written: bool = False
) -> tuple[int, ...]:
    """Refuse anything but an array that C can take as it is, of this dtype, or one of these, and this shape; its shape.

    Parameters
    ----------
    name : str
    array : Any
    dtype : Any
    shape : tuple[Axis, ...]
        sizes, or names of axes of any size: ("rows", "vocab"), (..., "vocab")
    like : str, default ""
        the argument whose dtype it is, for the message
    written : bool, default False
        it must be writable
    """
    dtypes = dtype if type(dtype) is tuple else (dtype,)
    if type(array) is not np.ndarray:
        _check_type(name, array, dtypes)
    if array.dtype not in dtypes:
        _refuse_dtype(name, array, dtypes, like)
    if not _fits(array.shape, shape):
        _refuse_shape(name, array.shape, shape)
    flags = array.flags
    if not flags.c_contiguous:
        raise ArgumentError(f"{name} must be C-contiguous{_pass(name, 'np.ascontiguousarray({})')}")
    if not flags.aligned:
        raise ArgumentError(
            f"{name} must begin on a multiple of {array.dtype.alignment} bytes{_pass(name, '{}.copy()')}"
        )
    if written and not flags.writeable:
        raise ArgumentError(f"{name} must be writable, since it is written; got a read-only array")
    return array.shape


def as_array(name: str, value: Any, dtype: Any, shape: tuple[Axis, ...]) -> np.ndarray:
    """A small array as C takes it: the value itself where it is one, else a conversion in which every element stays what it is.

    Parameters
    ----------
    name : str
    value : Any
        a NumPy array of any memory layout, a list, tuple or range, or a number, which has no axes
    dtype : Any
    shape : tuple[Axis, ...]
    """
    wanted = np.dtype(dtype)
    if type(value) is np.ndarray:
        found = value
    else:
        what = f"a NumPy array or list of {wanted.name}"
        if not isinstance(value, (list, tuple, range, int, float)) and not hasattr(type(value), "__array__"):
            refuse(name, what, value)
        found = any_array(name, value, wanted, what)
    if not _fits(found.shape, shape):
        _refuse_shape(name, found.shape, shape)
    if found.dtype == wanted:
        flags = found.flags
        return found if flags.c_contiguous and flags.aligned else np.require(found, wanted, _LAYOUT)
    kinds = {"i": "iu", "u": "iu", "f": "iuf", "b": "b"}[wanted.kind]
    if found.size and found.dtype.kind not in kinds:
        if isinstance(value, np.ndarray):
            _refuse_dtype(name, value, (dtype,), "")
        noun = {"iu": "integers", "iuf": "numbers", "b": "True or False"}[kinds]
        raise ArgumentError(f"{name} must hold {noun}, got {short(value)}")
    with np.errstate(all="ignore"):
        converted = np.require(found, wanted, _LAYOUT)
        same = (converted.astype(found.dtype) == found) & ((converted < 0) == (found < 0)) | (found != found)
    if not same.all():
        at = np.unravel_index(int(np.argmin(same)), same.shape)
        where = f"[{', '.join(str(int(index)) for index in at)}]" if at else ""
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            raise ArgumentError(f"{name}{where} must lie in {limits.min}..{limits.max}, got {short(found[at])}")
        if np.isfinite(found[at]) and not np.isfinite(converted[at]):
            raise ArgumentError(f"{name}{where} = {short(found[at])} is beyond {wanted.name}")
        rounding = f"{short(found[at])} would be rounded to {wanted.name}"
        raise ArgumentError(f"{name}{where} = {rounding}{_pass(name, f'np.asarray({{}}, np.{wanted.name})')}")
    return converted


def refuse(name: str, what: str, value: Any) -> NoReturn:
    """Raise the ArgumentError of an argument that must be something else."""
    raise ArgumentError(f"{name} must be {what}, got {short(value)}") from None


def any_array(name: str, value: Any, dtype: Any, what: str) -> np.ndarray:
    """The value as an array of whatever dtype it has; masked ones, other subclasses and what makes no array are refused.

    Parameters
    ----------
    name : str
    value : Any
    dtype : Any
        that is wanted
    what : str
        how a message calls that
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        _check_type(name, value, (dtype,))
    if isinstance(value, (list, tuple)):
        kinds = set(map(type, value))
        if any(issubclass(kind, _masked_arrays()) for kind in kinds):
            _check_type(name, np.ma.masked, (dtype,))
        if kinds & {bool, np.bool_} and len(kinds) > 1:  # NumPy would make numbers of them
            refuse(name, what, value)
    if isinstance(value, range) and len(value) > MOST_ENTRIES:
        refuse(name, what, value)
    try:
        return np.asarray(value)
    except Exception:  # ragged, or what an element raises: it is somebody's program
        refuse(name, what, value)


def _masked_arrays() -> tuple[type, ...]:
    """Their class where there can be one: NumPy imports it on first use, which takes 20 ms, maybe in another thread just now."""
    found = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return () if found is None else (found,)


def _check_type(name: str, array: Any, dtypes: Collection[Any]) -> None:
    """Refuse what is no array, and arrays that are more than their numbers."""
    if isinstance(array, np.memmap):
        return
    if isinstance(array, _masked_arrays()):
        raise ArgumentError(
            f"{name} must not be a masked array: its mask would be lost{_pass(name, '{}.filled(value)')}"
        )
    wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    kind = f"{name} must be a NumPy array of {wanted}, got {type(array).__name__}"
    if isinstance(array, np.ndarray):
        raise ArgumentError(f"{kind}{_pass(name, 'np.asarray({})')}")
    sequence = isinstance(array, (list, tuple, range)) or hasattr(type(array), "__array__")
    raise ArgumentError(kind + (_pass(name, f"np.asarray({{}}, np.{_first(dtypes)})") if sequence else ""))


def _first(dtypes: Collection[Any]) -> str:
    return np.dtype(next(iter(dtypes))).name


def _refuse_dtype(name: str, array: np.ndarray, dtypes: Collection[Any], like: str) -> None:
    wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes) + (f" as {like} has" if like else "")
    found = array.dtype.name[:60]
    if not array.dtype.isnative and array.dtype.newbyteorder("=") in dtypes:
        order = "big" if sys.byteorder == "little" else "little"
        raise ArgumentError(
            f"{name} must have this machine's byte order, got {order}-endian {found}{_pass(name, f'{{}}.astype(np.{found})')}"
        )
    fix = _pass(name, f"{{}}.astype(np.{_first(dtypes)})") if array.dtype.kind in "biuf" else ""
    raise ArgumentError(f"{name} must have dtype {wanted}, got {found}{fix}")


def _fits(found: tuple[int, ...], wanted: tuple[Axis, ...]) -> bool:
    if wanted and wanted[0] is ...:
        wanted = wanted[1:]
        found = found[len(found) - len(wanted) :] if len(found) >= len(wanted) else found
    if len(found) != len(wanted):
        return False
    for got, want in zip(found, wanted, strict=True):  # a loop: this is on the way of every call
        if got != want and want is not None and type(want) is not str:
            return False
    return True


def _refuse_shape(name: str, found: tuple[int, ...], wanted: tuple[Axis, ...]) -> None:
    axes = ["..." if size is ... else "any" if size is None else str(size) for size in wanted]
    if len(axes) > 5:
        axes = [*axes[:5], "..."]
    raise ArgumentError(
        f"{name} must have shape ({', '.join(axes)}{',' if len(axes) == 1 else ''}), got {short(tuple(map(int, found)))}"
    )


def _pass(name: str, call: str) -> str:
    """The fix, where the argument's name is one that a caller can write."""
    return f": pass {call.format(name)}" if re.fullmatch(r"[\w.]+(\['?\w+'?\])?", name) else ""


def check_integer(name: str, value: Any, minimum: int, maximum: int) -> int:
    """The value as an int within [minimum, maximum]; booleans and floats are refused."""
    try:
        number = operator.index(value)
    except Exception:  # TypeError, or what an __index__ of somebody's raises
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
    what = "a sequence of integers" if empty else "a non-empty sequence of integers"
    unordered = isinstance(values, (set, frozenset))
    array = any_array(name, list(values) if unordered else values, np.int32, what)
    if array.ndim == 1 and array.size == 0 and empty:
        return np.empty(0, np.int32)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        refuse(name, what, values)
    if minimum == 0 and array.dtype == np.int32:
        within = array.view(np.uint32).max() <= maximum  # what is negative is large there
    else:
        within = array.min() >= minimum and array.max() <= maximum
    if not within:
        index = int(np.argmax((array < minimum) | (array > maximum)))
        raise ArgumentError(f"{name}[{index}] must lie in {minimum}..{maximum}, got {array[index]}")
    if array.dtype != np.int32 or not (array.flags.c_contiguous and array.flags.aligned):
        array = np.require(array, np.int32, _LAYOUT)
    return np.sort(array) if unordered else array


def check_number(name: str, value: Any, minimum: float, maximum: float) -> float:
    """The value as a float within [minimum, maximum]; NaN, booleans and text are refused."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"{name} must be a number, got {short(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        number = float("inf") if value > 0 else float("-inf")
    if not minimum <= number <= maximum:
        raise ArgumentError(f"{name} must lie in {minimum:g}..{maximum:g}, got {short(number)}")
    return number


def check_numbers(name: str, values: Any, what: str = "numbers", *, empty: bool = False) -> np.ndarray:
    """Numbers of any shape, () for a single one, as float64; complex ones, text, ragged lists, and unless `empty` none are refused."""
    array = any_array(name, values, np.float64, what)
    if (array.size == 0 and not empty) or array.dtype.kind not in "biuf":
        refuse(name, what, values)
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
