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


def check_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    return default_threads() if threads is None else check_integer("threads", threads, 1, lib.fd_threads_limit())
