"""How many threads a job uses unless it says otherwise."""

from __future__ import annotations

import os

from fastdistill.arguments import check_integer
from fastdistill.kernels.boundary import lib
from fastdistill.platform import available_cpus


def default_threads() -> int:
    """FASTDISTILL_THREADS, else the CPUs that this process may use: affinity mask and control-group quota."""
    limit = lib.fd_threads_limit()
    asked = os.environ.get("FASTDISTILL_THREADS")
    if asked:
        return check_integer(
            "FASTDISTILL_THREADS", int(asked) if asked.isdecimal() and len(asked) < 20 else asked, 1, limit
        )
    return min(available_cpus(), limit)


class ThreadsByRows:
    """On how many threads forwards run: on `most`, or, of few rows, on those that were found to be faster.  They change no bit.

    Attributes
    ----------
    most : int
        threads
    fixed : bool
        whether somebody has asked for that number, so that no other one is looked for
    few : tuple[tuple[int, int], ...]
        (rows, threads), ascending: forwards of at most so many rows run on so many threads
    """

    def __init__(self, threads: int | None = None) -> None:
        self.most = check_threads(threads)
        self.fixed = threads is not None or bool(os.environ.get("FASTDISTILL_THREADS"))
        self.few: tuple[tuple[int, int], ...] = ()

    def __call__(self, rows: int) -> int:
        for most_rows, threads in self.few:
            if rows <= most_rows:
                return min(threads, self.most)
        return self.most


def check_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    return default_threads() if threads is None else check_integer("threads", threads, 1, lib.fd_threads_limit())
