"""Where the choices of a case come from: of a seed here, of hypothesis in `fastdistill.testing.strategies`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

T = TypeVar("T")
Case = dict[str, Any]  # the arguments of a call, by name


class Choices(Protocol):
    """What a kernel's `cases` is written against.  The first options and small numbers are the simplest: hypothesis shrinks to them."""

    def integer(self, low: int, high: int) -> int:
        """One of low..high."""
        ...

    def number(self, low: float, high: float) -> float:
        """A real between two of one sign, both possible."""
        ...

    def boolean(self) -> bool: ...

    def choice(self, options: Sequence[T]) -> T: ...

    def generator(self) -> np.random.Generator:
        """Of a seed that is chosen: for what is random all over, as the elements of an array are."""
        ...


class SeededChoices:
    """Choices that a seed makes: on one machine the same ones each time."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def number(self, low: float, high: float) -> float:
        """An end now and then, else one of any magnitude between them."""
        between = math.exp(self._random.uniform(math.log(low), math.log(high)))
        return self.choice([low, high, *[min(max(between, low), high)] * 6])

    def boolean(self) -> bool:
        return self._random.random() < 0.5

    def choice(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.integer(0, 2**32))
