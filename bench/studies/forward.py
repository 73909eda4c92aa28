"""Forwards of one to 512 rows beside llama.cpp and torch, the machine's limits, and the project's targets.

Engines take turns at each piece of work with the same tokens, threads and cached context.
"""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.engines import PREFILL, Elsewhere, Engine, Llama, Ours, Torch, Work
from bench.lib.limits import Cost, Limits, cost_of
from bench.lib.machine import GRANTED, STOLEN, Watch, cores_granted
from bench.lib.models import add_model_arguments, no_llama_cpp, passage
from bench.lib.peers import missing, requantised
from bench.lib.plot import draw, picture
from bench.lib.processes import memory_beside_weights_and_cache, no_peak_memory, seconds_to_first_output
from bench.lib.progress import Progress
from bench.lib.report import Report
from bench.lib.targets import (
    ALL_THREADS,
    CONTEXTS,
    FORWARDS,
    MEMORY_IDS,
    MEMORY_TEXT,
    ONE_THREAD,
    PLAIN,
    Q4_0,
    SAME,
    START_UP,
    TORCH,
    TWO_TO_ONE,
    Run,
    median,
    reached,
    targets,
)  # fmt: skip
from bench.lib.timing import Samples, interleave
from fastdistill.errors import ArgumentError
from fastdistill.kernels import default_threads, isa, isa_levels, set_isa

PAUSE = 0.05  # seconds: longer than any of the thread pools spins
QUICK = 3  # repetitions
POINTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of the picture
PROMPT = 16  # tokens, of a start
FORMATS = ("stored", "q8", "bf16", "f32")
SHARES = ("of bandwidth", "of dot products", "and scales")  # columns: a limit as a part of our time
SITE = "FASTDISTILL_LLAMA_CPP_AVX2"  # names a site directory with a llama_cpp that was built without AVX-512


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=9)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} turns, and {CONTEXTS[0]} tokens cached only")
    parser.add_argument(
        "--formats", default=",".join(FORMATS), metavar="F,...", help="of the weights (default: %(default)s)"
    )
    parser.add_argument(
        "--plot", type=picture, metavar="FILE.png", help=f"a picture of what forwards of 1 to {POINTS[-1]} cost"
    )


class Bench:
    """One number of threads: the engines, what they took, and what was found beside it."""

    def __init__(self, options: Namespace, report: Report, threads: int, progress: Progress) -> None:
        self.options, self.report, self.threads, self.progress = options, report, threads, progress
        self.repetitions = QUICK if options.quick else options.repetitions
        self.contexts = CONTEXTS[:1] if options.quick else CONTEXTS
        self.engines: dict[str, Engine | Elsewhere] = {}
        self.costs: dict[str, Cost] = {}  # of our engines
        self.seconds: dict[Run, Samples] = {}
        self.values: dict[str, Samples | float] = {}
        self.limits = Limits(threads)
        self.ids: list[int] = []
        self.granted = float(threads)  # cores, while threads were compared
        self.plain = ""  # the engine that stands for a llama.cpp without AVX-512

    # ---- engines ----

    def load(self) -> None:
        options = self.options
        for format in options.formats.split(","):
            self.progress.group(f"loading {format}")
            model = fd.load(options.model, None if format == "stored" else format, self.threads)
            if not self.ids:
                self.tokenizer = model.tokenizer
                ids = self.tokenizer.encode(passage())
                self.capacity = model.plan.max_positions
                self.ids = (ids * -(-self.capacity // len(ids)))[: self.capacity]
            session = model.session(self.capacity, max_rows=PREFILL)
            forced = ["avx2"] if format == "stored" and "avx2" in isa_levels() else []  # there are targets for it
            for level in dict.fromkeys(options.levels + forced):
                name = f"{format} {level}"
                self.engines[name] = Ours(session, level, self.ids)
                self.costs[name] = cost_of(model.network)
        reason = no_llama_cpp(options.gguf)
        if reason:
            self.report.skip("llama.cpp", reason)
        else:
            self._load_llama_cpp()
        if reason := missing("torch", "transformers"):
            self.report.skip("torch", reason)
        else:
            for dtype, name in (("bfloat16", TORCH), ("float32", "torch f32")):
                self.progress.group(f"loading {name}")
                self.engines[name] = Torch(options.model, self.threads, dtype, self.ids)

    def _load_llama_cpp(self) -> None:
        gguf = self.options.gguf
        self.progress.group("loading llama.cpp")
        q4_0 = requantised(gguf, Path(tempfile.gettempdir()) / "fastdistill-bench")
        for name, path in ((Q4_0, q4_0), (SAME, gguf)):
            self.engines[name] = engine = Llama(path, self.capacity, self.threads, self.ids)
        self.report.note(f"llama-cpp-python {engine.llama.version}: {engine.llama.system.strip(' |')}")
        self.report.note(f"{SAME}: {gguf.name}; {Q4_0}: made of it by llama.cpp")
        if not engine.llama.has_avx512:
            self.plain = Q4_0
            self.report.note(f"{PLAIN}: this llama.cpp runs none here, so it is the same engine")
        elif site := os.environ.get(SITE):
            self.plain = PLAIN
            self.engines[PLAIN] = other = Elsewhere(Path(site), q4_0, self.capacity, self.threads, self.ids)
            self.report.note(f"{PLAIN}: {other.system.strip(' |')}")
        else:
            self.report.skip(PLAIN, f"{SITE} names no site directory that holds such a build")

    def names(self, *, torch: bool = False, ours: bool = True) -> list[str]:
        """Engines that run this kind of work."""
        return [
            name
            for name in self.engines
            if (torch or not name.startswith("torch")) and (ours or name not in self.costs or name in self.best)
        ]

    @property
    def best(self) -> list[str]:
        """Ours that the picture and the long context show."""
        return [f"stored {self.options.levels[-1]}"]

    # ---- measuring ----

    def measure(self) -> None:
        """Group by group; what is finished stays when one is interrupted."""
        self.load()
        self.check()
        first = self.contexts[0]
        self.group("prefill", [(name, Work(0, PREFILL)) for name in self.names(torch=True)])
        self.scaling()
        for cached in self.contexts:
            if cached != first:
                prefill = [(name, Work(cached, PREFILL)) for name in self.names(torch=True)]
                self.group(f"prefill, {cached} cached", prefill)
            runs = [(name, Work(cached, rows)) for rows in FORWARDS for name in self.names()]
            if self.options.plot and cached == first:
                more = [rows for rows in POINTS if rows not in FORWARDS]
                runs += [(name, Work(cached, rows)) for rows in more for name in self.names(ours=False)]
            self.group(f"forwards, {cached} cached", runs)
        if not self.options.quick:
            runs = [(name, Work(self.capacity - 1, 1)) for name in self.names(ours=False) if name != PLAIN]
            self.group(f"decode, {self.capacity - 1} cached", runs)
            self.report.note(f"{self.capacity - 1} cached: with the row itself, all positions that the model has")
        self.processes()

    def group(self, name: str, runs: Iterable[Run]) -> None:
        """Measure the limits beside: what others take of the machine at one time, they may leave at another."""
        formats = {name: {*cost.row, *cost.read_row} for name, cost in self.costs.items()}
        self.progress.group("the machine's limits")
        self.limits.measure({(name.split()[1], format) for name in formats for format in formats[name]})
        self.time(name, {run: self.engines[run[0]].turn(run[1]) for run in runs})
        if self.plain == Q4_0:
            self.seconds |= {(PLAIN, work): taken for (engine, work), taken in self.seconds.items() if engine == Q4_0}

    def time(self, name: str, turns: Mapping[Run, Callable[[], float]]) -> None:
        self.seconds |= {run: Samples.of(taken) for run, taken in self.quietly(name, turns).items()}

    def quietly(self, name: str, turns: Mapping[Any, Callable[[], float]]) -> dict[Any, list[float]]:
        """Interleaved turns; once more where the host took time away meanwhile, and the quieter of the two."""
        self.progress.group(name)
        done, total = 0, len(turns) * (self.repetitions + 1)

        def counted(turn: Callable[[], float]) -> float:
            nonlocal done
            done += 1
            self.progress.step(done, total)
            return turn()

        contestants = {key: partial(counted, turn) for key, turn in turns.items()}
        found = []
        for _ in range(2):
            done = 0
            with Watch(self.threads) as watch:
                taken = interleave(contestants, self.repetitions, PAUSE)
            found.append((watch.stolen, taken))
            if watch.stolen <= STOLEN:
                break
        if len(found) > 1:
            shares = " and then ".join(f"{stolen:.0%}" for stolen, _ in found)
            self.report.note(f"{name}: the host took {shares} of the CPU time away; the quieter turns count")
        return min(found, key=lambda pair: pair[0])[1]

    def check(self) -> None:
        """A row's argmax is the same however many rows are beside it, and mostly llama.cpp's."""
        self.progress.group("checking")
        cached, most = CONTEXTS[0], FORWARDS[-1]
        found = {name: self.rows_of(name, Work(cached, most)) for name in self.names() if name != PLAIN}
        for name in self.costs:
            for rows in FORWARDS[:-1]:
                alone = self.rows_of(name, Work(cached, rows))
                assert (alone == found[name][:rows]).all(), f"{name}: a forward of {rows} differs from one of {most}"
        ours = self.best[0] if self.best[0] in found else next(iter(self.costs))
        for name in (Q4_0, SAME):
            if name in found:
                same = int((found[name] == found[ours]).sum())
                self.report.note(f"{name} gives the likeliest token of {same} of {most} rows as fastdistill does")

    def rows_of(self, name: str, work: Work) -> np.ndarray:
        engine = self.engines[name]
        assert isinstance(engine, Engine)
        engine.enter()
        return engine.forward(work).copy()

    def scaling(self) -> None:
        """Prefill on all threads and on one."""
        ours = self.best[0]
        if self.threads == 1 or ours not in self.engines:
            return
        single = fd.load(self.options.model, threads=1).session(self.capacity, max_rows=PREFILL)
        work = Work(0, PREFILL)
        turns = {
            ONE_THREAD: Ours(single, self.options.levels[-1], self.ids).turn(work),
            ALL_THREADS: self.engines[ours].turn(work),
        }
        before = cores_granted(self.threads)
        self.time(TWO_TO_ONE, turns)
        self.granted = min(before, cores_granted(self.threads))
        self.report.note(f"{TWO_TO_ONE}: the host granted {self.granted:.2f} cores of {self.threads}")

    def processes(self) -> None:
        """Start-up and memory, of processes of their own."""
        folder, threads = self.options.model, self.threads
        start = partial(seconds_to_first_output, folder, self.tokenizer.decode(self.ids[:PROMPT]), threads)
        self.values[START_UP] = Samples.of(self.quietly(START_UP, {"start": start})["start"])
        if reason := no_peak_memory():
            self.report.skip("peak memory", reason)
            return
        ids = self.ids[:PREFILL]
        for name, prompt in ((MEMORY_IDS, ids), (MEMORY_TEXT, self.tokenizer.decode(ids))):
            self.progress.group(name)
            self.values[name] = memory_beside_weights_and_cache(folder, threads, prompt) * 1e-6

    # ---- reporting ----

    def shares(self, run: Run) -> dict[str, str]:
        """The limits as a part of our time."""
        engine, work = run
        if engine not in self.costs or run not in self.seconds or not self.limits.bandwidth:
            return {}
        cost, taken = self.costs[engine], self.seconds[run].median
        found = {SHARES[0]: f"{self.limits.reading(cost, work) / taken:.0%}"}
        if work.rows >= FORWARDS[1]:
            level = engine.split()[1]
            for name, scales in zip(SHARES[1:], (False, True), strict=True):
                found[name] = f"{self.limits.computing(cost, work, level, scales) / taken:.0%}"
        return found

    def rows(self) -> None:
        """What every engine took, a row each."""
        order = {name: place for place, name in enumerate(self.engines)}
        runs = [run for run in self.seconds if run[0] in order]
        for run in sorted(runs, key=lambda run: (run[1].is_prefill, run[1].cached, run[1].rows, order[run[0]])):
            engine, work = run
            cells = {"kernel": getattr(self.engines[engine], "kernel", "-"), "threads": self.threads}
            cells |= {"cached": work.cached, "rows": work.rows, "ms": self.seconds[run] * 1e3}
            one = engine, Work(work.cached, 1)
            paired = 1 < work.rows < PREFILL and one in self.seconds
            cells["/ of 1"] = self.seconds[run] / self.seconds[one] if paired else ""
            if engine in self.costs:
                cells |= dict.fromkeys(SHARES, "") | self.shares(run)
                for peer in (Q4_0, SAME, TORCH, "torch f32"):
                    if (peer, work) in self.seconds:
                        cells[f"x {peer}"] = self.seconds[peer, work] / self.seconds[run]
            self.report.row(engine=engine, **cells)

    def targets(self) -> None:
        """The table of targets: what was reached, and whether that is enough."""
        self.report.table(f"targets, {self.threads} threads")
        reading = {
            run: self.limits.reading(self.costs[run[0]], run[1])
            for run in self.seconds
            if run[0] in self.costs and self.limits.bandwidth
        }
        for target in targets(self.options.levels[-1]):
            cells: dict[str, Any] = {"work": target.work, "target": str(target)}
            figure = reached(target, self.seconds, reading, self.values)
            cells["reached"] = "not measured" if figure is None else figure
            cells["met"] = "-" if figure is None else "yes" if target.met(median(figure)) else "NO"
            if target.work == TWO_TO_ONE and self.granted < GRANTED * self.threads:
                cells["met"] += f" ({self.granted:.1f} cores)"
            cells |= dict.fromkeys(("ms", "beside ms", *SHARES), "")
            ours, other = target.runs
            for name, run in (("ms", ours), ("beside ms", other)):
                if figure is not None and run is not None and run in self.seconds:
                    cells[name] = self.seconds[run] * 1e3
            if figure is not None and ours is not None:
                cells |= self.shares(ours)
            self.report.row(**cells)

    def notes(self) -> None:
        limits = self.limits
        rates = [
            f"{format} {level} {limits.rates[level, format, False] * 1e-9:.0f} / {limits.rates[level, format, True] * 1e-9:.0f}"
            for level, format in sorted({key[:2] for key in limits.rates})
        ]
        self.report.note(
            f"limits with {self.threads} threads: {limits.bandwidth * 1e-9:.1f} GB/s; 10^9 multiply-adds a second, dot products "
            f"alone / with scales: {', '.join(rates)}"
        )
        for name, cost in self.costs.items():
            self.report.note(f"{name}: a forward reads {cost.weight_bytes * 1e-6:.1f} MB of weights")

    def picture(self) -> None:
        """cost(rows) of ours and llama.cpp, and the limits."""
        path, ours, cached = self.options.plot, self.best[0], CONTEXTS[0]
        if not self.limits.bandwidth or (ours, Work(cached, 1)) not in self.seconds:
            self.report.skip(str(path), "interrupted before its forwards were measured")
            return
        cost, level = self.costs[ours], ours.split()[1]
        works = {rows: Work(cached, rows) for rows in POINTS}
        curves = {
            label: {rows: self.seconds[name, work] for rows, work in works.items() if (name, work) in self.seconds}
            for label, name in (("fastdistill", ours), (Q4_0, Q4_0), (SAME, SAME))
        }
        limits = {
            "limit: memory": {rows: self.limits.reading(cost, work) for rows, work in works.items()},
            "limit: arithmetic": {
                rows: self.limits.computing(cost, work, level, scales=True) for rows, work in works.items()
            },
        }
        draw(path, "fastdistill", {label: curve for label, curve in curves.items() if curve}, limits)
        self.report.note(f"picture in {path}")


def run(options: Namespace) -> Report:
    report, progress, before = Report(__doc__), Progress(), isa()
    if unknown := set(options.formats.split(",")) - set(FORMATS):
        raise ArgumentError(f"--formats knows {', '.join(FORMATS)}, got {', '.join(sorted(unknown))}")
    benches = []
    try:
        for threads in options.threads:
            benches.append(Bench(options, report, threads, progress))
            benches[-1].measure()
    except KeyboardInterrupt:
        report.note("interrupted: what was finished is shown")
    finally:
        progress.end()
        set_isa(before)
    for bench in benches:
        bench.rows()
    for bench in benches:
        bench.targets()
        bench.notes()
        for engine in bench.engines.values():
            if isinstance(engine, Elsewhere):
                engine.close()
    if options.plot and benches:
        benches[-1].picture()
    repetitions = QUICK if options.quick else options.repetitions
    report.note(f"medians and quartiles of {repetitions} turns; ratios are of turns in the same round")
    return report
