"""How things found appear in messages: in one line of bounded length, whatever they are."""

from __future__ import annotations

import reprlib
import sys
import warnings
from collections.abc import Iterable
from typing import Any


class _Short(reprlib.Repr):
    """A repr that looks at a few items of each container, and at none of what is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring, self.maxother = 60, 80
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = 5

    def repr_int(self, x: int, level: int) -> str:
        if abs(x) < 1 << 128:
            return repr(x)
        return f"an integer of {x.bit_length()} bits"  # Python refuses to write those of 4,300 digits and more

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(x if len(x) <= self.maxstring else x[: self.maxstring] + "...", level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x) if len(x) <= 16 else f"{type(x).__name__} of {len(x):,}"

    repr_bytearray = repr_bytes

    def repr_ndarray(self, x: Any, level: int) -> str:
        if x.size <= 8 and x.dtype.kind in "biuf" and x.dtype.itemsize <= 8:
            return f"array({x.tolist()}, {x.dtype.name})"
        return f"a {x.dtype.name} array of shape {x.shape}"

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            if type(x).__module__ == "numpy" and hasattr(x, "item") and not hasattr(x, "__len__"):
                return self.repr1(x.item(), level)  # 0, not np.int64(0)
            return super().repr_instance(x, level)
        except Exception:  # a repr is somebody's program
            return f"<{type(x).__name__}>"


_SHORT = _Short()


def short(value: object, limit: int = 80) -> str:
    """A value in a message: one line of at most `limit` characters.  Never fails."""
    try:
        text = " ".join(_SHORT.repr(value).splitlines())
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str) -> str:
    """Words in which somebody else's may stand: what a terminal would obey is spelt out, lines stay lines."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names in a message, the first `most` of them and how many more there are."""
    every = [str(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known name is near."""
    import difflib  # where a name is wrong, and not before: memory

    near = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def warn(message: str) -> None:
    """A warning that points at the caller's line, the first outside this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "fastdistill":
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(message), stacklevel=level)
