"""How many threads a job uses unless it says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from fastdistill.arguments import check_integer
from fastdistill.kernels.boundary import lib

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def _quota() -> float:
    """CPUs that the control group grants, infinity where it sets no limit."""
    try:
        if _CGROUP_V2.exists():
            quota, period = _CGROUP_V2.read_text().split()
        else:
            quota, period = (path.read_text().strip() for path in _CGROUP_V1)
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else float("inf")
    except (OSError, ValueError):
        return float("inf")


def default_threads() -> int:
    """FASTDISTILL_THREADS, else the CPUs that this process may use: affinity mask and control-group quota."""
    limit = lib.fd_threads_limit()
    asked = os.environ.get("FASTDISTILL_THREADS")
    if asked:
        return check_integer(
            "FASTDISTILL_THREADS", int(asked) if asked.isdecimal() and len(asked) < 20 else asked, 1, limit
        )
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(_quota()) if _quota() < limit else limit, limit))


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
