"""What was measured on, and what else ran there meanwhile."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib.peak import TILES, peak
from fastdistill.kernels import default_threads, isa, isa_levels, kernel_name
from fastdistill.runtime.bandwidth import bandwidth as measured_bandwidth
from fastdistill.runtime.bandwidth import rate
from fastdistill.runtime.packing import QUANTISED

BANDWIDTH_BYTES = 512 << 20  # far beyond any cache
STOLEN = 0.02  # of the time; beyond this a run is worth repeating
OTHERS = 0.05
GRANTED = 0.9  # of the cores
PEAK_SECONDS = 0.02  # of one measurement


def facts() -> dict[str, Any]:
    """The machine in a few words."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "levels": list(isa_levels()),
        "level": isa(),
        "kernels": [f"{format} {kernel_name(format)}" for format in QUANTISED],
        "threads": default_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def bandwidth(most_threads: int) -> float:
    """Bytes a second, as a profile measures them, over more memory."""
    return measured_bandwidth(most_threads, BANDWIDTH_BYTES)


def multiply_adds(level: str, format: str, scales: bool, threads: int) -> float:
    """Multiply-adds a second of so many threads, in registers and the first cache: the best register tile's best turn.

    scales  with the instructions that follow each block of 32 inputs, beside the dot products
    """
    loop = peak(level)

    def blocks_a_second(rows: int) -> float:
        def work(blocks: int) -> int:
            return loop(format, scales, rows, blocks)

        blocks = max(1, int(PEAK_SECONDS * 100 * rate(work, [100])))
        return blocks * max(rate(work, [blocks] * threads) for _ in range(3))

    return threads * max(blocks_a_second(rows) * loop(format, scales, rows, 1) for rows in TILES)


def cores_granted(threads: int) -> float:
    """CPU seconds a second that so many computing threads get: `threads`, or less where they have to share.

    The best of a few short turns: in one alone the system may not have spread the threads yet.
    """

    def work(_: int) -> None:
        data = np.full(1 << 15, 0.5)
        for _ in range(100):
            np.cbrt(data, out=data)  # some 0.3 ms, beside which passing the interpreter's lock on does not count

    def turn() -> float:
        started, before = time.perf_counter(), time.process_time()
        list(pool.map(work, range(threads)))
        return (time.process_time() - before) / (time.perf_counter() - started)

    with ThreadPoolExecutor(threads) as pool:
        return max(turn() for _ in range(5))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), "unknown"
    )


class Watch:
    """Counts what the host took away (steal) and what other processes used, between `with` and its end."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.found: dict[str, float] = {}

    def __enter__(self) -> Watch:
        self._granted = cores_granted(self._threads)
        self._start = self._times()
        return self

    def __exit__(self, *_: object) -> None:
        now = self._times()
        if self._start is not None and now is not None and now[0] > self._start[0]:
            wall, busy, steal, own = (end - start for end, start in zip(now, self._start, strict=True))
            self.found["stolen"] = steal / wall
            self.found["others"] = max(0.0, busy - own) / wall
        self.found["cores granted before"] = self._granted
        self.found["cores granted after"] = cores_granted(self._threads)

    @property
    def stolen(self) -> float:
        """The part of the time that the host took away; 0 where the system does not say."""
        return self.found.get("stolen", 0.0)

    @property
    def warnings(self) -> list[str]:
        """Why the run should be repeated, if it should."""
        found = self.found
        granted = min(found["cores granted before"], found["cores granted after"])
        reasons = [
            (self.stolen > STOLEN, f"the host took {self.stolen:.0%} of the CPU time away"),
            (found.get("others", 0) > OTHERS, f"other processes used {found.get('others', 0):.0%} of the CPU time"),
            (granted < GRANTED * self._threads, f"{self._threads} threads got {granted:.1f} cores"),
        ]
        return [reason for applies, reason in reasons if applies]

    @staticmethod
    def _times() -> tuple[float, float, float, float] | None:
        """CPU seconds since the start: all, busy, stolen, of this process."""
        try:
            first = Path("/proc/stat").read_text().splitlines()[0]
        except OSError:
            return None
        ticks = [
            int(field) / os.sysconf("SC_CLK_TCK") for field in first.split()[1:9]
        ]  # user nice system idle iowait irq softirq steal
        own = os.times()
        return (
            sum(ticks),
            sum(ticks[:3]) + sum(ticks[5:7]),
            ticks[7],
            own.user + own.system + own.children_user + own.children_system,
        )
