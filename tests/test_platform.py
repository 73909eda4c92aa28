"""What a process may take is read from what the system says; a false system's files stand in for every kind of machine."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fastdistill import kernels, platform
from fastdistill.platform import available_cpus, available_memory

GB = 1 << 30
STATUS = "Name:\tpython\nVmPeak:\t 9437184 kB\nVmSize:\t 2097152 kB\nVmData:\t 1048576 kB\n"
MEMINFO = "MemTotal:       33554432 kB\nMemFree:         1048576 kB\nMemAvailable:   16777216 kB\n"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Files of a system whose process has no limits of its own; 64 CPUs."""
    monkeypatch.setattr(platform, "_ROOT", tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda number: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"
SYSTEMS = {
    "nobody says": ({}, None),
    "a machine": ({"proc/meminfo": MEMINFO}, 16 * GB),
    "an old kernel without MemAvailable": ({"proc/meminfo": "MemTotal: 33554432 kB\n"}, None),
    "v2 without a limit": (
        {"proc/meminfo": MEMINFO, f"{V2}/memory.max": "max\n", f"{V2}/memory.current": f"{GB}\n"},
        16 * GB,
    ),
    "v2, a container's own root": (
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/docker/0123\n",
            f"{V2}/memory.max": f"{4 * GB}\n",
            f"{V2}/memory.current": f"{3 * GB}\n",
        },
        GB,
    ),
    "v2, pages of files count as free": (
        {
            "proc/meminfo": MEMINFO,
            f"{V2}/memory.max": f"{4 * GB}\n",
            f"{V2}/memory.current": f"{3 * GB}\n",
            f"{V2}/memory.stat": f"anon {GB}\nfile {2 * GB}\ninactive_file {GB}\nactive_file {GB}\n",
        },
        2 * GB,
    ),
    "v2, the least of the groups around": (
        {
            "proc/self/cgroup": "0::/user.slice/run.scope\n",
            f"{V2}/user.slice/memory.max": f"{2 * GB}\n",
            f"{V2}/user.slice/memory.current": f"{GB // 2}\n",
            f"{V2}/user.slice/run.scope/memory.max": f"{8 * GB}\n",
            f"{V2}/user.slice/run.scope/memory.current": f"{GB // 2}\n",
        },
        3 * GB // 2,
    ),
    "v2, another's group": (
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/mine\n",
            f"{V2}/other/memory.max": f"{GB}\n",
            f"{V2}/other/memory.current": "0\n",
        },
        16 * GB,
    ),
    "v1 without a limit": (
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "4:memory:/\n1:cpu,cpuacct:/\n",
            f"{V1}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{V1}/memory.usage_in_bytes": f"{GB}\n",
        },
        16 * GB,
    ),
    "v1, with pages of files": (
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "4:memory:/a\n0::/\n",
            f"{V1}/a/memory.limit_in_bytes": f"{4 * GB}\n",
            f"{V1}/a/memory.usage_in_bytes": f"{3 * GB}\n",
            f"{V1}/a/memory.stat": f"inactive_file {3 * GB}\ntotal_inactive_file {GB}\n",
        },
        2 * GB,
    ),
    "a group that holds more than it may": (
        {f"{V2}/memory.max": f"{GB}\n", f"{V2}/memory.current": f"{2 * GB}\n"},
        0,
    ),
    "files that hold nothing": (
        {"proc/meminfo": MEMINFO, f"{V2}/memory.max": "", f"{V2}/memory.current": "", f"{V2}/memory.stat": ""},
        16 * GB,
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_available_memory_is_the_least_that_anybody_says(system, name):
    files, expected = SYSTEMS[name]
    system(files)
    assert available_memory() == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(resource.RLIMIT_AS, 3 * GB), (resource.RLIMIT_DATA, 4 * GB), (resource.RLIMIT_CORE, 16 * GB)],
)
def test_a_limit_of_the_process_leaves_what_it_has_not_taken(system, monkeypatch, number, expected):
    system({"proc/meminfo": MEMINFO, "proc/self/status": STATUS})
    limit = {number: (5 * GB, resource.RLIM_INFINITY)}
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda asked: limit.get(asked, unlimited))
    assert available_memory() == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process has taken")
def test_what_is_left_of_this_system_may_be_taken_and_no_more():
    code = """
import resource
from fastdistill.platform import available_memory
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
left = available_memory()
assert 0 < left <= 64 << 20, left
block = bytearray(left - (1 << 20))
try:
    more = bytearray(left)
except MemoryError:
    print("no more")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "no more\n", done.stderr


CPUS = {
    "nobody says": ({}, 64),
    "v2 without a quota": ({f"{V2}/cpu.max": "max 100000\n"}, 64),
    "v2": ({f"{V2}/cpu.max": "250000 100000\n"}, 2),
    "v2, less than one": ({f"{V2}/cpu.max": "50000 100000\n"}, 1),
    "v2, of a group around": (
        {"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/cpu.max": "300000 100000\n", f"{V2}/a/b/cpu.max": "max 100000\n"},
        3,
    ),
    "v1": ({f"{V2}/cpu/cpu.cfs_quota_us": "800000\n", f"{V2}/cpu/cpu.cfs_period_us": "100000\n"}, 8),
    "v1 without a quota": ({f"{V2}/cpu/cpu.cfs_quota_us": "-1\n", f"{V2}/cpu/cpu.cfs_period_us": "100000\n"}, 64),
    "v1, with another controller": (
        {
            "proc/self/cgroup": "2:cpu,cpuacct:/a\n",
            f"{V2}/cpu/a/cpu.cfs_quota_us": "400000\n",
            f"{V2}/cpu/a/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "nonsense": ({f"{V2}/cpu.max": "many 0\n", "proc/self/cgroup": "0::/\n"}, 64),
}


@pytest.mark.parametrize("name", CPUS)
def test_available_cpus_are_whole_ones_of_the_least_quota(system, name):
    files, expected = CPUS[name]
    system(files)
    assert available_cpus() == expected


def test_threads_are_the_cpus_that_are_available(system, monkeypatch):
    monkeypatch.delenv("FASTDISTILL_THREADS", raising=False)
    system({f"{V2}/cpu.max": "300000 100000\n"})
    assert kernels.threads.default_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(1000)), raising=False)
    system({f"{V2}/cpu.max": "max 100000\n"})
    assert kernels.threads.default_threads() == 64  # the most that C has


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 97\nmodel name\t: A Quick One\n", "model name\t: A Quick One"),
        ("processor\t: 0\nBogoMIPS\t: 38\n\nModel\t\t: Raspberry Pi 4\n", "Model\t\t: Raspberry Pi 4"),
    ],
)
def test_a_processor_has_the_name_that_linux_gives_it(system, text, name):
    system({"proc/cpuinfo": text})
    assert platform.processor() == name
