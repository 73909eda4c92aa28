"""Executors that sessions share: a session has none of its own, a pass takes one and gives it back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastdistill.errors import CapacityError
from fastdistill.kernels.sample.sample import sample_workspace
from fastdistill.kernels.threads import ThreadsByRows
from fastdistill.models.plan import Plan
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.reference_executor import ReferenceExecutor, ReferenceWeights

FEWEST_ROWS = 256  # of an executor: sessions of fewer rows share those of this size


class Seat:
    """An executor, and the work space of draws beside it.

    Attributes
    ----------
    executor : NativeExecutor | ReferenceExecutor
        for passes of at most `max_rows` rows
    """

    def __init__(self, executor: NativeExecutor | ReferenceExecutor, max_rows: int, threads: int) -> None:
        self.executor, self._rows, self._threads = executor, max_rows, threads
        self._workspace: np.ndarray | None = None

    def workspace(self) -> np.ndarray:
        """What `sample` works in; made at the first draw.

        Raises
        ------
        CapacityError
        """
        if self._workspace is None:
            vocab = self.executor.plan.vocab_size
            try:
                self._workspace = sample_workspace(self._rows, vocab, self._threads)
            except MemoryError:
                raise CapacityError(f"no memory to draw one of {vocab} tokens on {self._threads} threads") from None
        return self._workspace


class Pool:
    """Seats of one size: as many as passes have run at once, used again and again."""

    def __init__(self, make: Callable[[], Seat]) -> None:
        self._make = make
        self._idle: list[Seat] = []

    def take(self) -> Seat:
        """A seat for one pass, to be given back.

        Raises
        ------
        CapacityError
            where there is no memory for another one
        """
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def give_back(self, seat: Seat) -> None:
        """Let the next pass have it."""
        self._idle.append(seat)


def executor_rows(max_rows: int) -> int:
    """Rows of the executor that sessions of forwards of at most `max_rows` rows share."""
    return max(FEWEST_ROWS, 1 << (max_rows - 1).bit_length())


def make_seat(
    plan: Plan, weights: PackedWeights | ReferenceWeights, threads: ThreadsByRows, max_rows: int, taps: tuple[str, ...]
) -> Seat:
    """A seat of a network."""
    if isinstance(weights, ReferenceWeights):
        return Seat(ReferenceExecutor(plan, weights, taps), max_rows, threads.most)
    return Seat(NativeExecutor(plan, weights, max_rows, threads, taps), max_rows, threads.most)
