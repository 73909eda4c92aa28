"""The operating system: what POSIX and Windows have each in their own way, or not at all, and what a process may still take.

No other file asks which system this is, or uses a name that Windows lacks.  Linux and macOS run what stands here for POSIX.
What stands here for Windows agrees with the names that it has (`mypy --platform win32`) and has not been run there.
Nothing of the package is imported: the process that runs chat templates reads this file alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")  # of /proc and /sys, by which Linux says what a process may take


# ---- memory and CPUs


def available_memory() -> int | None:
    """Bytes that this process may still take; None where nobody says, as on Windows and macOS without a limit.

    The least of what Linux calls available, what the control groups around this process leave, where pages of files
    that nobody reads count as free, and what its own limits of address space and of data leave.
    """
    left = [most << 10 for most in _numbers("proc/meminfo", "MemAvailable:")]
    for group in _control_groups("memory"):
        for limit, used, file_pages in (
            ("memory.max", "memory.current", "inactive_file "),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        ):
            idle = sum(_numbers(group / "memory.stat", file_pages))
            for most, taken in zip(_numbers(group / limit), _numbers(group / used), strict=False):
                if most < 1 << 62:  # v1 says about 2^63 where there is no limit
                    left.append(most - max(0, taken - idle))
    if sys.platform != "win32":
        import resource

        for number, name in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
            most = resource.getrlimit(number)[0]
            if most != resource.RLIM_INFINITY:
                left += [most - (taken << 10) for taken in _numbers("proc/self/status", name)]
    return max(0, min(left)) if left else None


def available_cpus() -> int:
    """CPUs that this process may use: of its affinity mask, and the whole ones that the control groups around it grant."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for group in _control_groups("cpu"):
        v1 = _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")  # -1: no quota
        for numbers in (_numbers(group / "cpu.max"), v1):
            if len(numbers) == 2 and min(numbers) > 0:
                cpus = min(cpus, numbers[0] / numbers[1])
    return max(1, int(cpus))


def processor() -> str:
    """This CPU's name."""
    for line in _lines("proc/cpuinfo"):
        if line.startswith(("model name", "Model")):
            return line
    import platform  # Python's

    return platform.processor()


def _lines(name: str | Path) -> list[str]:
    """Of a file of /proc or /sys; none where there is no such file."""
    try:
        return (_ROOT / name).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _numbers(name: str | Path, title: str = "") -> list[int]:
    """Those that the line of a title holds; without one, all that stand in the file."""
    words = [word for line in _lines(name) if line.startswith(title) for word in line[len(title) :].split()]
    return [int(word) for word in words if word.isdecimal()]


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that hold this process, v1's of a controller or v2's, as far as they are to be seen.

    A container sees its own group as the root of all, whatever /proc says of its path.
    """
    for line in _lines("proc/self/cgroup") or [f"0:{controller}:/", "0::/"]:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = _ROOT / "sys/fs/cgroup" / (controller if controllers else "")
            parts = path.split("/")[1:]
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))
