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


def check_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    return default_threads() if threads is None else check_integer("threads", threads, 1, lib.fd_threads_limit())
