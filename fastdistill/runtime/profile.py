"""Where the time of forwards goes, and how near they come to the memory's bandwidth.

    with fd.Profile() as profile:
        model.generate("The capital of France is")
    print(profile)

Threads stamp a clock as they enter a stage (csrc/plan.c): nothing waits for it and no result changes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from fastdistill.kernels.forward.linear import kernel_name
from fastdistill.ops import OWN
from fastdistill.runtime.bandwidth import BANDWIDTH_BYTES, bandwidth
from fastdistill.runtime.forward_pass import ForwardPass
from fastdistill.runtime.kv_cache import numbers
from fastdistill.runtime.lowering import STEPS, Step
from fastdistill.runtime.packing import PackedWeights


@dataclass
class Stages:
    """What all stages of one name took.

    Attributes
    ----------
    calls : int
        stages that were run
    seconds : float
        in them
    bytes : int
        weights once a forward; each sequence's visible keys and values once a layer; nothing else
    """

    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Phase:
    """Forwards of one kind, and the time from the end of the forward before each of them.

    Attributes
    ----------
    forwards : int
        how many
    rows : int
        of all of them
    seconds : float
        in them and before them
    stages : dict[str, Stages]
        by name, what each took
    """

    forwards: int = 0
    rows: int = 0
    seconds: float = 0.0
    stages: dict[str, Stages] = field(default_factory=dict)

    @property
    def total(self) -> Stages:
        """All stages together."""
        parts = self.stages.values()
        return Stages(*(sum(getattr(part, name.name) for part in parts) for name in dataclasses.fields(Stages)))

    @property
    def rest_seconds(self) -> float:
        """Outside the stages: Python, text, waking threads, whatever else came between forwards."""
        return self.seconds - self.total.seconds


class Profile:
    """Records the native forwards that this thread makes within `with`; entered again, it goes on counting.

    Attributes
    ----------
    prefill : Phase
        forwards that read fewer rows than they run: a prompt. Arithmetic limits them
    decode : Phase
        forwards that read every row. With few rows, the memory's bandwidth limits them
    kernels : dict[str, str]
        format -> the kernel that multiplied by weights of this format
    threads : int
        most of any forward
    seconds : float
        between entering and leaving, recording aside: those of prefill and decode
    """

    def __init__(self) -> None:
        self.prefill, self.decode = Phase(), Phase()
        self.kernels: dict[str, str] = {}
        self.threads = 1
        self._last = self.prefill  # whose time runs
        self._outer: list[Profile | None] = []  # active before each entering

    @property
    def seconds(self) -> float:
        return self.prefill.seconds + self.decode.seconds

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second that this machine reads; measured when first asked for, in some tenths of a second."""
        return bandwidth(self.threads)

    def __enter__(self) -> Profile:
        if not self._outer:
            self._since = time.perf_counter()
        self._outer.append(_ACTIVE.get())
        _ACTIVE.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _ACTIVE.set(self._outer.pop())
        self._until_now(self._last)

    def add(self, outline: Outline, request: ForwardPass, clock: np.ndarray, threads: int) -> None:
        """Count one pass; clock int64 (stages + 1,) nanoseconds."""
        reads = len(request.read_rows)
        phase = self._last = self.prefill if reads < request.rows else self.decode
        self._until_now(phase)
        phase.forwards += 1
        phase.rows += request.rows
        seen = {keys: _seen(request, *keys) for keys in {keys for each in outline.attends for keys, _ in each}}
        moved = outline.weight_bytes[0] + (outline.weight_bytes[1] if reads else 0)
        moved = moved + np.array([sum(seen[keys] * size for keys, size in each) for each in outline.attends])
        taken = np.bincount(outline.name_of_stage, np.diff(clock), len(outline.names))
        for name, calls, nanoseconds, size in zip(outline.names, outline.calls, taken, moved, strict=True):
            stages = phase.stages.setdefault(name, Stages())
            stages.calls += int(calls)
            stages.seconds += float(nanoseconds) * 1e-9
            stages.bytes += int(size)
        self.kernels |= {format: kernel_name(format) for format in outline.formats}
        self.threads = max(self.threads, threads)
        self._since = time.perf_counter()

    def _until_now(self, phase: Phase) -> None:
        now = time.perf_counter()
        phase.seconds += now - self._since
        self._since = now

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        phases = {
            name: dataclasses.asdict(phase) | {"rest_seconds": phase.rest_seconds} for name, phase in self._phases()
        }
        return {"kernels": self.kernels, "threads": self.threads, "bandwidth": self.bandwidth, **phases}

    def __str__(self) -> str:
        """One table a phase; measures the bandwidth."""
        lines = [f"kernel   {format}: {kernel}" for format, kernel in self.kernels.items()]
        lines.append(
            f"memory   {self.bandwidth * 1e-9:.1f} GB/s: the best of 1 to {self.threads} threads over {BANDWIDTH_BYTES >> 20} MB"
        )
        for name, phase in self._phases():
            if phase.forwards:
                lines += ["", f"{name}  {phase.seconds:.3f} s; forwards: {phase.forwards}, rows: {phase.rows}"]
                lines += _table(phase, self.bandwidth)
        return "\n".join(lines)

    def _phases(self) -> list[tuple[str, Phase]]:
        return [("prefill", self.prefill), ("decode", self.decode)]


_ACTIVE: ContextVar[Profile | None] = ContextVar("profile", default=None)


def active_profile() -> Profile | None:
    """The profile that this thread's forwards are recorded in."""
    return _ACTIVE.get()


@dataclass(frozen=True)
class Outline:
    """What a profile has to know of a program.

    Attributes
    ----------
    names : tuple[str, ...]
        of stages, each once
    name_of_stage : int64 (stages,)
        which of `names`
    calls : int64 (names,)
        stages of that name
    weight_bytes : int64 (2, names)
        read in any case, and where rows are read
    attends : list[list[tuple[tuple[str, int], int]]]
        of each of `names`, for each reading of keys and values: their key set and window, and the numbers of a token's
    formats : tuple[str, ...]
        of the weights that rows are multiplied by
    """

    names: tuple[str, ...]
    name_of_stage: np.ndarray
    calls: np.ndarray
    weight_bytes: np.ndarray
    attends: list[list[tuple[tuple[str, int], int]]]
    formats: tuple[str, ...]


def outline(steps: Sequence[Step], counts: Iterable[int], weights: PackedWeights) -> Outline:
    """The outline of steps that run in stages of `counts` steps; a stage is named by all that it does."""
    rest = iter(steps)
    stages = [list(islice(rest, count)) for count in counts]
    names = [" + ".join(dict.fromkeys(map(_label, stage))) for stage in stages]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    name_of_stage = np.array([places[name] for name in names])
    weight_bytes: np.ndarray = np.zeros((2, len(places)), np.int64)
    attends: list[list[tuple[tuple[str, int], int]]] = [[] for _ in places]
    formats: dict[str, None] = {}
    for number, stage in zip(name_of_stage, stages, strict=True):
        for step in stage:
            if STEPS[step.kind].reads_keys and step.op is not None:
                c = step.op.constants
                keys = c.get("key_set", OWN), c.get("window", 0)
                attends[number].append((keys, numbers((c["kv_heads"], c["head_dim"]))))
            for matrix, *_ in step.weights if STEPS[step.kind].reads_weights else ():
                weight_bytes[int(step.reads), number] += weights.matrix(matrix).nbytes
                formats[weights.formats[matrix]] = None
    return Outline(tuple(places), name_of_stage, np.bincount(name_of_stage), weight_bytes, attends, tuple(formats))


def _label(step: Step) -> str:
    """A step's kind; of linears also which: `linear q,k,v` for "...q_proj.weight" and so on."""
    if step.kind != "linear":
        return step.kind
    modules = (matrix.removesuffix(".weight").rpartition(".")[2] for matrix, *_ in step.weights)
    return "linear " + ",".join(module.removesuffix("_proj") for module in modules)


def _seen(request: ForwardPass, key_set: str, window: int) -> int:
    """Tokens that attention reads, each sequence's once, of its row that sees most, times the bytes of a number."""
    keys = request.keys(key_set)
    assert keys is not None  # it has been read
    counts = keys.key_counts[keys.nodes]
    most = np.zeros(len(keys.caches), np.int64)
    np.maximum.at(most, request.sequences, np.minimum(counts, window) if window else counts)
    return sum(int(n) * cache.dtype.itemsize for n, cache in zip(most, keys.caches, strict=True))


def _table(phase: Phase, memory: float) -> list[str]:
    total = phase.total
    rows = sorted(phase.stages.items(), key=lambda item: -item[1].seconds)
    lines = [("", "calls", "ms", "share", "MB", "GB/s", "of memory")]
    for name, stages in [*rows, ("all stages", total), ("rest", Stages(seconds=phase.rest_seconds))]:
        speed = stages.bytes / stages.seconds if stages.seconds else 0.0
        moved = (
            (f"{stages.bytes * 1e-6:.1f}", f"{speed * 1e-9:.1f}", f"{speed / memory:.0%}" if memory else "")
            if stages.bytes
            else ("",) * 3
        )
        calls = str(stages.calls) if stages.calls else ""
        share = f"{stages.seconds / phase.seconds:.1%}" if phase.seconds else ""
        lines.append((name, calls, f"{stages.seconds * 1e3:.1f}", share, *moved))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            [f"  {name:{widths[0]}}", *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        ).rstrip()
        for name, *cells in lines
    ]
