"""The cases of every kernel as hypothesis strategies: `strategies.linear()` gives the arguments of a call, by name.

A strategy takes what the `cases` of its kernel takes: `strategies.row_divergence(kinds=["jsd"])`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from fastdistill.messages import short, suggestion
from fastdistill.testing.cases import KERNELS, cases_of
from fastdistill.testing.choices import Case, Choices

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("fastdistill.testing.strategies needs hypothesis: pip install 'fastdistill[test]'") from None

T = TypeVar("T")
__all__ = [*KERNELS, "drawn"]


class DrawnChoices:
    """Choices that hypothesis makes, and shrinks."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def number(self, low: float, high: float) -> float:
        return self._draw(st.floats(low, high))

    def boolean(self) -> bool:
        return self._draw(st.booleans())

    def choice(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self._draw(st.integers(0, 2**32)))


def drawn(make: Callable[..., T], *arguments: Any, **named: Any) -> st.SearchStrategy[T]:
    """The strategy of a function that makes something by choices: `drawn(cases)`.

    Parameters
    ----------
    make : Callable[..., T]
        called with Choices, then what follows here
    arguments, named : Any
        what follows
    """

    @st.composite
    def strategy(draw: st.DrawFn) -> T:
        choices: Choices = DrawnChoices(draw)
        return make(choices, *arguments, **named)

    return strategy()


def __getattr__(name: str) -> Callable[..., st.SearchStrategy[Case]]:
    if name not in KERNELS:
        raise AttributeError(f"module {short(__name__)} has no strategy {short(name)}{suggestion(name, KERNELS)}")

    def strategy(**named: Any) -> st.SearchStrategy[Case]:
        return drawn(cases_of(name).cases, **named)

    return strategy


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
