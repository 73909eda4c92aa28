"""Comparisons whose message says where a result differs first, what is there and what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastdistill.messages import short


def same(name: str, got: Any, want: Any, dtype: Any = None) -> None:
    """Equal elements, NaN equal to NaN; and where it is given, the dtype."""
    got, want = _shaped(name, got, want, dtype)
    _refuse(name, got, want, (got != want) & ~((got != got) & (want != want)), "")


def near(name: str, got: Any, want: Any, allowed: Any, dtype: Any = None) -> None:
    """|got - want| <= allowed, or equal, in each element; where infinitely much is allowed nothing is said of it."""
    got, want = _shaped(name, got, want, dtype)
    with np.errstate(invalid="ignore"):
        off = np.abs(got.astype(want.dtype) - want)
    allowed = np.broadcast_to(allowed, want.shape)
    fits = (off <= allowed) | (got == want) | ((got != got) & (want != want)) | np.isposinf(allowed)
    most = float(np.max(np.where(fits, 0, allowed), initial=0))
    _refuse(name, got, want, ~fits, f", and may be {most:.3g} apart")


def holds(claim: Any, message: str) -> None:
    """Fail with this message unless the claim holds; `assert` would be left out by `python -O`."""
    if not claim:
        raise AssertionError(message)


def within(name: str, values: Any, count: int) -> None:
    """Indices of something that has so many: 0..count - 1."""
    found = np.asarray(values)
    holds(((found >= 0) & (found < count)).all(), f"{name} must lie in 0..{count - 1}, got {short(found)}")


def _shaped(name: str, got: Any, want: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    got, want = np.asarray(got), np.asarray(want)
    if dtype is not None:
        holds(got.dtype == dtype, f"{name} has dtype {got.dtype}, expected {np.dtype(dtype)}")
    holds(got.shape == want.shape, f"{name} has shape {got.shape}, expected {want.shape}")
    return got, want


def _refuse(name: str, got: np.ndarray, want: np.ndarray, wrong: np.ndarray, bound: str) -> None:
    if not wrong.any():
        return
    at = tuple(int(index) for index in np.argwhere(wrong)[0])
    place = f"{list(at)}" if at else ""
    many = f"; so are {int(wrong.sum()) - 1} more of {wrong.size}" if wrong.sum() > 1 else ""
    raise AssertionError(f"{name}{place} is {short(got[at])}, the reference says {short(want[at])}{bound}{many}")


def parts(result: Any, name: str = "result") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays and numbers that a call gave, each with its name."""
    if isinstance(result, dict):
        named = [(f"{name}[{key}]", value) for key, value in result.items()]
    elif isinstance(result, (tuple, list)):
        fields = getattr(result, "_fields", None)
        named = [(fields[place] if fields else f"{name}[{place}]", value) for place, value in enumerate(result)]
    else:
        yield name, np.asarray(result)
        return
    for inner, value in named:
        yield from parts(value, inner)


def same_bits(got: Any, want: Any, whose: str) -> None:
    """Every array of two results alike in every bit; `whose` says where the second one comes from."""
    ours, others = list(parts(got)), list(parts(want))
    holds(len(ours) == len(others), f"there are {len(ours)} results, {whose} {len(others)}")
    for (name, one), (_, other) in zip(ours, others, strict=True):
        shapes = f"{one.dtype} {one.shape}", f"{other.dtype} {other.shape}"
        holds(shapes[0] == shapes[1], f"{name} is {shapes[0]}, {whose} {shapes[1]}")
        if one.tobytes() != other.tobytes():
            flat, meant = np.ascontiguousarray(one).reshape(-1), np.ascontiguousarray(other).reshape(-1)
            size = one.dtype.itemsize
            bits, expected = (array.view(np.uint8).reshape(-1, size) for array in (flat, meant))
            first = int((bits != expected).any(axis=1).argmax())
            place = [int(index) for index in np.unravel_index(first, one.shape)] if one.ndim else ""
            raise AssertionError(
                f"{name}{place} has other bits than {whose}: {bits[first][::-1].tobytes().hex()} ({short(flat[first])}), "
                f"not {expected[first][::-1].tobytes().hex()} ({short(meant[first])})"
            )
