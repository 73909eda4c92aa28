"""How fast this machine reads memory: the limit of every forward of few rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

REPETITIONS = 5  # of each thread count
BANDWIDTH_BYTES = 128 << 20  # beyond most caches, and no burden for a small device


def bandwidth(most_threads: int, size: int = BANDWIDTH_BYTES) -> float:
    """Bytes a second: the best of 1 to `most_threads` threads that read `size` bytes between them.

    They fold it with `or`, the cheapest fold that NumPy vectorises: adding floats would measure the adder.
    """
    data = np.ones(size // 8, np.int64)
    rates = (
        rate(np.bitwise_or.reduce, np.array_split(data, threads))
        for threads in range(1, most_threads + 1)
        for _ in range(REPETITIONS)
    )
    return data.nbytes * max(rates)


def rate(work: Callable[[Any], object], parts: Sequence[Any]) -> float:
    """Runs a second of `work` over all parts, one a thread; 0 where the clock stands still."""
    from concurrent.futures import ThreadPoolExecutor  # with `logging`: half a megabyte, which sessions do without

    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(id, parts))  # start the threads
        started = time.perf_counter()
        list(pool.map(work, parts))
        seconds = time.perf_counter() - started
    return 1 / seconds if seconds > 0 else 0.0
