"""Times that can be compared on a machine that is not quiet: interleaved, and as medians and ratios within one run.

Contestants take turns, so whatever slows the machine for a while slows all of them; a ratio is taken between neighbours
and only then is its median.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Samples:
    """The same quantity measured again and again, in turn with others'."""

    values: np.ndarray  # float64 (repetitions,)

    @classmethod
    def of(cls, values: Iterable[float]) -> Samples:
        return cls(np.array(list(values), np.float64))

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self.values, [0.25, 0.75])
        return float(low), float(high)

    @property
    def spread(self) -> float:
        """The distance of the quartiles as a part of the median."""
        low, high = self.quartiles
        return (high - low) / abs(self.median) if self.median else 0.0

    def __mul__(self, factor: float) -> Samples:
        return Samples(self.values * factor)

    def __rtruediv__(self, amount: float) -> Samples:
        """An amount over these seconds: a rate."""
        return Samples(amount / self.values)

    def __truediv__(self, other: Samples) -> Samples:
        """Pairwise: repetition by repetition."""
        return Samples(self.values / other.values)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.quartiles
        ends = {"minimum": float(self.values.min()), "maximum": float(self.values.max())}
        return {
            "median": self.median,
            "lower_quartile": low,
            "upper_quartile": high,
            **ends,
            "repetitions": len(self.values),
        }


def interleave(
    contestants: Mapping[Key, Callable[[], Result]], repetitions: int, pause: float = 0.0, warm_up: int = 1
) -> dict[Key, list[Result]]:
    """Every contestant's results, each called once to warm up and then in turn; every other round runs backwards.

    pause    seconds before each call, so that a pool of threads that spins while it waits has gone to sleep
    warm_up  first rounds whose results are dropped
    """
    results: dict[Key, list[Result]] = {name: [] for name in contestants}
    order = list(contestants)
    for round in range(warm_up + repetitions):
        for name in order:
            time.sleep(pause)
            result = contestants[name]()
            if round >= warm_up:
                results[name].append(result)
        order.reverse()
    return results


class Timer:
    """A contestant that gives the seconds of one call, called often enough for the clock."""

    def __init__(
        self, call: Callable[[], object], prepare: Callable[[], object] | None = None, shortest: float = 2e-3
    ) -> None:
        self._call, self._prepare, self._shortest = call, prepare, shortest
        self._calls = 0

    def __call__(self) -> float:
        if self._prepare is not None:
            self._prepare()
        if self._calls == 0:
            self._call()
            once = self._seconds(1)
            self._calls = max(1, math.ceil(self._shortest / once))
            if self._calls == 1:
                return once
        return self._seconds(self._calls)

    def _seconds(self, calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            self._call()
        return max(time.perf_counter() - started, 1e-9) / calls


def measure(timers: Mapping[str, Timer], repetitions: int, pause: float = 0.0) -> dict[str, Samples]:
    """Seconds a call of each; pause as in `interleave`."""
    return {name: Samples.of(seconds) for name, seconds in interleave(timers, repetitions, pause).items()}
