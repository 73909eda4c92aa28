"""Where the time of forwards goes, and how near they come to the memory's bandwidth.

    with fd.Profile() as profile:
        model.generate("The capital of France is")
    print(profile)

Training has phases of its own: forward, reverse and step.  Threads stamp a clock as they enter a stage (csrc/plan.c):
nothing waits for it and no result changes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from fastdistill.cached import cached_property
from fastdistill.kernels.forward.linear import kernel_name
from fastdistill.ops import MATRIX, MATRIX_SUM, OPS, OWN, TABLE
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
    operations : int
        of products with matrices and their gradients, two a multiply-add; experts and attention are left out
    """

    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0
    operations: int = 0


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

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return dataclasses.asdict(self) | {"rest_seconds": self.rest_seconds}

    def count(self, name: str, calls: int, seconds: float, moved: int = 0, operations: int = 0) -> None:
        """More of the stages of one name."""
        stages = self.stages.setdefault(name, Stages())
        stages.calls += int(calls)
        stages.seconds += float(seconds)
        stages.bytes += int(moved)
        stages.operations += int(operations)


PHASES = "prefill", "decode", "forward", "reverse", "step"


class Profile:
    """Records the native forwards that this thread makes within `with`; entered again, it goes on counting.

    Attributes
    ----------
    prefill : Phase
        forwards that read fewer rows than they run: a prompt. Arithmetic limits them
    decode : Phase
        forwards that read every row. With few rows, the memory's bandwidth limits them
    forward : Phase
        of training: forwards of layers and head, and the objective
    reverse : Phase
        of training: passes back through them
    step : Phase
        of training: clipping, and what an optimiser does with the gradients
    kernels : dict[str, str]
        format -> the kernel that multiplied by weights of this format
    threads : int
        most of any forward
    seconds : float
        between entering and leaving, recording aside: those of all phases
    """

    def __init__(self) -> None:
        self.prefill, self.decode, self.forward, self.reverse, self.step = (Phase() for _ in PHASES)
        self.kernels: dict[str, str] = {}
        self.threads = 1
        self._last = self.prefill  # whose time runs
        self._outer: list[Profile | None] = []  # active before each entering

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for _, phase in self._phases())

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
        phase = self._began(request.phase or ("prefill" if reads < request.rows else "decode"))
        phase.forwards += 1
        phase.rows += request.rows
        seen = {keys: _seen(request, *keys) for keys in {keys for each in outline.attends for keys, _ in each}}
        operations = 2 * (outline.products[0] * request.rows + outline.products[1] * reads)
        moved = outline.weight_bytes[0] + (outline.weight_bytes[1] if reads else 0)
        moved = moved + np.array([sum(seen[keys] * size for keys, size in each) for each in outline.attends])
        taken = np.bincount(outline.name_of_stage, np.diff(clock), len(outline.names))
        for name, *found in zip(outline.names, outline.calls, taken * 1e-9, moved, operations, strict=True):
            phase.count(name, *found)
        self.kernels |= {format: kernel_name(format) for format in outline.formats}
        self.threads = max(self.threads, threads)
        self._since = time.perf_counter()

    def add_stage(self, phase: str, name: str, seconds: float) -> None:
        """Count what was just done beside passes."""
        self._began(phase).count(name, 1, seconds)

    def _began(self, phase: str) -> Phase:
        """The phase, to which the time since the last pass belongs."""
        self._last = getattr(self, phase)
        self._until_now(self._last)
        return self._last

    def _until_now(self, phase: Phase) -> None:
        now = time.perf_counter()
        phase.seconds += now - self._since
        self._since = now

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        phases = {name: phase.facts() for name, phase in self._phases() if phase.stages or name in PHASES[:2]}
        return {"kernels": self.kernels, "threads": self.threads, "bandwidth": self.bandwidth, **phases}

    def __str__(self) -> str:
        """One table a phase; measures the bandwidth."""
        lines = [f"kernel   {format}: {kernel}" for format, kernel in self.kernels.items()]
        lines.append(
            f"memory   {self.bandwidth * 1e-9:.1f} GB/s: the best of 1 to {self.threads} threads over {BANDWIDTH_BYTES >> 20} MB"
        )
        for name, phase in self._phases():
            if phase.stages:
                passes = f"; {'forwards' if name in PHASES[:2] else 'passes'}: {phase.forwards}, rows: {phase.rows}"
                lines += ["", f"{name}  {phase.seconds:.3f} s{passes if phase.forwards else ''}"]
                lines += _table(phase, self.bandwidth)
        return "\n".join(lines)

    def _phases(self) -> list[tuple[str, Phase]]:
        return [(name, getattr(self, name)) for name in PHASES]


_ACTIVE: ContextVar[Profile | None] = ContextVar("profile", default=None)


def active_profile() -> Profile | None:
    """The profile that this thread's forwards are recorded in."""
    return _ACTIVE.get()


@contextmanager
def stage(phase: str, name: str) -> Iterator[None]:
    """Record what is done within as a stage of a phase, where this thread has a profile."""
    started = time.perf_counter()
    yield
    profile = _ACTIVE.get()
    if profile is not None:
        profile.add_stage(phase, name, time.perf_counter() - started)


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
    products : int64 (2, names)
        multiply-adds of a row, and of a row that is read
    attends : list[list[tuple[tuple[str, int], int]]]
        of each of `names`, for each reading of keys and values: their key set and window, and the numbers of a token's
    formats : tuple[str, ...]
        of the weights that rows are multiplied by
    """

    names: tuple[str, ...]
    name_of_stage: np.ndarray
    calls: np.ndarray
    weight_bytes: np.ndarray
    products: np.ndarray
    attends: list[list[tuple[tuple[str, int], int]]]
    formats: tuple[str, ...]


def outline(steps: Sequence[Step], counts: Iterable[int], weights: PackedWeights) -> Outline:
    """The outline of steps that run in stages of `counts` steps; a stage is named by all that it does."""
    rest = iter(steps)
    stages = [list(islice(rest, count)) for count in counts]
    names = [" + ".join(dict.fromkeys(map(_label, stage))) for stage in stages]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    name_of_stage = np.array([places[name] for name in names])
    weight_bytes, products = np.zeros((2, 2, len(places)), np.int64)
    attends: list[list[tuple[tuple[str, int], int]]] = [[] for _ in places]
    formats: dict[str, None] = {}
    for number, stage in zip(name_of_stage, stages, strict=True):
        for step in stage:
            if STEPS[step.kind].reads_keys and step.op is not None:
                c = step.op.constants
                keys = c.get("key_set", OWN), c.get("window", 0)
                attends[number].append((keys, numbers((c["kv_heads"], c["head_dim"]))))
            kind = STEPS[step.kind]
            for role, matrix in _roles(step) if kind.reads_weights or kind.adds_products else ():
                if role in (MATRIX, TABLE, MATRIX_SUM):
                    packed = weights.matrix(matrix)
                    products[int(step.reads), number] += math.prod(packed.shape)
                    if kind.reads_weights:
                        weight_bytes[int(step.reads), number] += packed.nbytes
                        formats[weights.formats[matrix]] = None
    calls = np.bincount(name_of_stage)
    return Outline(tuple(places), name_of_stage, calls, weight_bytes, products, attends, tuple(formats))


def _roles(step: Step) -> list[tuple[str, str]]:
    """What each weight of a step is to it, and its name."""
    assert step.op is not None
    return [pair for names in step.weights for pair in OPS[step.op.kind].roles(names)]


def _label(step: Step) -> str:
    """A step's kind; of linears also which: `linear q,k,v` for "...q_proj.weight" and so on."""
    if not step.kind.startswith("linear"):
        return step.kind
    matrices = (name for role, name in _roles(step) if role in (MATRIX, TABLE, MATRIX_SUM))
    modules = (matrix.removesuffix(".weight").rpartition(".")[2] for matrix in matrices)
    return f"{step.kind} " + ",".join(module.removesuffix("_proj") for module in modules)


def _seen(request: ForwardPass, key_set: str, window: int) -> int:
    """Tokens that attention reads, each sequence's once, of its row that sees most, times the bytes of a number.

    In training a cache holds all sequences of a pass, and no others.
    """
    keys = request.keys(key_set)
    assert keys is not None  # it has been read
    if request.phase:
        return request.rows * keys.caches[0].dtype.itemsize
    counts = keys.key_counts[keys.nodes]
    most = np.zeros(len(keys.caches), np.int64)
    np.maximum.at(most, request.sequences, np.minimum(counts, window) if window else counts)
    return sum(int(n) * cache.dtype.itemsize for n, cache in zip(most, keys.caches, strict=True))


def _table(phase: Phase, memory: float) -> list[str]:
    total = phase.total
    rows = sorted(phase.stages.items(), key=lambda item: -item[1].seconds)
    lines = [("", "calls", "ms", "share", "Gop/s", "MB", "GB/s", "of memory")]
    for name, stages in [*rows, ("all stages", total), ("rest", Stages(seconds=phase.rest_seconds))]:
        speed = stages.bytes / stages.seconds if stages.seconds else 0.0
        moved = (
            (f"{stages.bytes * 1e-6:.1f}", f"{speed * 1e-9:.1f}", f"{speed / memory:.0%}" if memory else "")
            if stages.bytes
            else ("",) * 3
        )
        calls = str(stages.calls) if stages.calls else ""
        share = f"{stages.seconds / phase.seconds:.1%}" if phase.seconds else ""
        computed = f"{stages.operations / stages.seconds * 1e-9:.1f}" if stages.operations and stages.seconds else ""
        lines.append((name, calls, f"{stages.seconds * 1e3:.1f}", share, computed, *moved))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            [f"  {name:{widths[0]}}", *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        ).rstrip()
        for name, *cells in lines
    ]
