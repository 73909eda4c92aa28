"""Entropic optimal transport beside POT, GeomLoss and torch: dense, where epsilon is small, in batches, from points, and SinKD's loss.

Contestants of a case solve the same problem with the same epsilon and the same number of iterations, none of which stops
early, and each is asked for its plan; "error" is the larger of its plan's two L1 errors of a marginal.  Plans are compared
before anything is timed.

NumPy and torch have as many threads as ours (NumPy's BLAS takes OPENBLAS_NUM_THREADS, by default all cores).
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib.levels import compare
from bench.lib.limits import Limits
from bench.lib.peers import missing
from bench.lib.processes import no_peak_memory
from bench.lib.report import Report
from bench.lib.timing import Samples, Timer, interleave, measure
from fastdistill.distill import sinkhorn_loss
from fastdistill.errors import ArgumentError
from fastdistill.kernels import default_threads, isa, set_isa
from fastdistill.reference.transport.sinkhorn import sinkhorn as reference_sinkhorn
from fastdistill.transport import Transport, sinkhorn

SIZES = (256, 1024, 2048)  # of a dense problem
ITERATIONS = 100
EPSILON = 0.05  # times the median cost: after 100 iterations the error is some 1e-4
SMALL, SMALL_EPSILON, MANY = 512, 1e-3, 500  # size, epsilon / median cost, iterations where exp(-cost / epsilon) is 0
BATCH, SIDE = 1024, 32
CLOUDS, DIMENSION, FEW = (5_000, 20_000), 16, 5  # points, and iterations over them
SINKD_ROWS, SINKD_VOCAB = 64, 32_000
PAUSE = 0.25  # seconds before a turn: the threads of OpenBLAS spin for some 2^28 cycles after a call
SLOW = 3  # most turns of what takes seconds
MOST_MEGABYTES = 100  # of a solver over points, beyond what the process held before

CASES = ("dense", "small_epsilon", "batch", "points", "sinkd")
Call = Callable[[], Any]


def add_arguments(parser: Any) -> None:
    parser.set_defaults(threads=[default_threads()], levels=[isa()])
    cases = ",".join(CASES)
    parser.add_argument("--cases", default=cases, metavar="NAME,...", help=f"of {cases} (default: all)")


def run(options: Namespace) -> Report:
    report, before = Report(__doc__), isa()
    threads = max(options.threads)
    try:
        add_levels(report, options)
        for level in options.levels:
            set_isa(level)
            limits = Limits(threads)
            limits.measure({(level, "f32")})
            bench = Bench(report, options, level, limits)
            for case in options.cases.split(","):
                if case not in CASES:
                    raise ArgumentError(f"--cases must be of {', '.join(CASES)}, got {case}")
                getattr(bench, case)()
    finally:
        set_isa(before)
    return report


def add_levels(report: Report, options: Namespace) -> None:
    """The kernel beside its reference."""
    a, cost, epsilon = problem(SIZES[0])
    settings: dict[str, Any] = {"epsilon": epsilon, "max_iterations": 10, "tolerance": 0.0}
    expected = reference_sinkhorn(a, None, cost, **settings).plan

    def check(found: object) -> None:
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-15)

    compare(
        report, options, f"{SIZES[0]} x {SIZES[0]}, 10 iterations",
        lambda threads: sinkhorn(a, None, cost, **settings, threads=threads).plan, check,
        lambda: reference_sinkhorn(a, None, cost, **settings).plan,
    )  # fmt: skip


def problem(
    n: int, apart: float = 0.0, epsilon: float = EPSILON, batch: tuple[int, ...] = ()
) -> tuple[Any, Any, float]:
    """Masses of the rows, squared distances between points of two unit squares that lie so far apart, and an epsilon."""
    generator = np.random.default_rng(0)
    x, y = generator.random((2, *batch, n, 2))
    masses = generator.uniform(0.5, 1.5, (*batch, n))
    x[..., 0] += apart
    cost = np.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1)
    return masses / masses.sum(-1, keepdims=True), cost, epsilon * float(np.median(cost))


def error(plan: np.ndarray, a: np.ndarray) -> float:
    """The larger L1 error of a marginal, the largest of a batch; columns have equal masses."""
    rows = np.abs(plan.sum(-1) - a).sum(-1)
    columns = np.abs(plan.sum(-2) - 1 / plan.shape[-1]).sum(-1)
    return float(np.max([rows, columns]))


def agree(name: str, plan: np.ndarray, ours: np.ndarray, a: np.ndarray) -> None:
    """Both are on the way to the same plan, and so about as far from one another as from their marginals."""
    apart, allowed = np.abs(plan - ours).sum((-1, -2)).max(), 10 * max(error(plan, a), error(ours, a)) + 1e-12
    assert apart <= allowed, f"the plan of {name} is {apart:.1e} from ours"


def by_pot(method: str, a: np.ndarray, cost: np.ndarray, epsilon: float, iterations: int) -> Call:
    """POT's plan."""
    import ot

    settings = {"method": method, "numItermax": iterations, "stopThr": 0.0, "warn": False}
    return partial(ot.sinkhorn, a, np.full(cost.shape[1], 1 / cost.shape[1]), cost, epsilon, **settings)


class Bench:
    """The cases on one level."""

    def __init__(self, report: Report, options: Namespace, level: str, limits: Limits) -> None:
        self.report, self.level, self.limits = report, level, limits
        self.threads = limits.threads
        self.often, self.seldom = options.repetitions, min(options.repetitions, SLOW)

    def ours(self, *arrays: np.ndarray | None, **settings: Any) -> Transport:
        return sinkhorn(*arrays, **settings, tolerance=0.0, threads=self.threads)

    def contest(
        self,
        case: str,
        calls: Mapping[str, Call],
        repetitions: int,
        targets: Mapping[str, float] | None = None,
        cells: Mapping[str, Mapping[str, Any]] | None = None,
        work: tuple[float, float] | None = None,
    ) -> dict[str, Samples]:
        """A line for each; the first one's time is what the others' is divided by.

        targets  by name, what that quotient is to be at least
        cells    by name, what else stands in the line
        work     of the first: bytes that it has to read, multiply-adds that it has to do
        """
        seconds = measure(
            {name: Timer(call) for name, call in calls.items()}, repetitions, PAUSE if len(calls) > 1 else 0.0
        )
        first, *others = seconds
        for name, taken in seconds.items():
            row: dict[str, Any] = {"case": case, "by": name, "milliseconds": taken * 1e3, **(cells or {}).get(name, {})}
            if name in others:
                row[f"/ {OURS}"] = taken / seconds[first]
            if bound := (targets or {}).get(name):
                row |= {"target": f">= {bound:g}", "met": met((taken / seconds[first]).median >= bound)}
            if work and name == first:
                peak = self.limits.rates[self.level, "f32", False] / 2  # as many lanes of twice the width
                row["of bandwidth"] = f"{work[0] / self.limits.bandwidth / taken.median:.0%}"
                row["of peak"] = f"{work[1] / peak / taken.median:.0%}"
            self.report.row(**row)
        return seconds

    def table(self, title: str) -> None:
        self.report.table(f"{title}; {self.level}, threads: {self.threads}")

    def dense(self) -> None:
        self.table(f"dense, float64, {ITERATIONS} iterations, epsilon {EPSILON:g} of the median cost")
        for n in SIZES:
            a, cost, epsilon = problem(n)
            calls: dict[str, Call] = {
                OURS: lambda a=a, cost=cost, epsilon=epsilon: (
                    self.ours(a, None, cost, epsilon=epsilon, max_iterations=ITERATIONS).plan
                )
            }
            work = ITERATIONS * cost.nbytes, 2.0 * ITERATIONS * cost.size
            if not (reason := missing("ot")):
                for name, method in POT.items():
                    calls[name] = by_pot(method, a, cost, epsilon, ITERATIONS)
            plans = {name: call() for name, call in calls.items()}
            cells = {name: {"error": error(plan, a)} for name, plan in plans.items()}
            for name in {PLAIN, LOG} & plans.keys():
                agree(name, plans[name], plans[OURS], a)
            quick = {name: call for name, call in calls.items() if name != LOG}
            self.contest(f"n = {n}", quick, self.often, {PLAIN: 1.5}, cells, work)
            if LOG in calls:
                self.contest(f"n = {n}", {OURS: calls[OURS], LOG: calls[LOG]}, self.seldom, {LOG: 50}, cells)
        if reason:
            self.report.skip("POT", reason)

    def small_epsilon(self) -> None:
        """Where every entry of the plain kernel underflows."""
        a, cost, epsilon = problem(SMALL, apart=2.0, epsilon=SMALL_EPSILON)
        self.table(
            f"clouds apart, n = {SMALL}, {MANY} iterations, epsilon {SMALL_EPSILON:g} of the median cost: "
            f"exp(-cost / epsilon) is at most {np.exp(-cost.min() / epsilon):.0e}"
        )
        settings = {"epsilon": epsilon, "max_iterations": MANY}
        calls: dict[str, Call] = {
            OURS: lambda: self.ours(a, None, cost, **settings).plan,
            f"{OURS}, epsilon scaling": lambda: self.ours(a, None, cost, epsilon_scaling=0.5, **settings).plan,
        }
        if not missing("ot"):
            calls |= {name: by_pot(method, a, cost, epsilon, MANY) for name, method in POT.items()}
        cells = {}
        with warnings.catch_warnings():
            for name, call in calls.items():
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    cells[name] = {"error": error(call(), a), "says": "; ".join({str(one.message) for one in said})}
            warnings.simplefilter("ignore")
            self.contest("", calls, self.seldom, cells=cells)

    def batch(self) -> None:
        self.table(f"{BATCH} problems of {SIDE} x {SIDE}, float64, {ITERATIONS} iterations")
        a, cost, epsilon = problem(SIDE, batch=(BATCH,))
        calls: dict[str, Call] = {
            OURS: lambda: self.ours(a, None, cost, epsilon=epsilon, max_iterations=ITERATIONS).plan
        }
        slow, targets = {}, {LOG_LOOP: 20.0}
        if not missing("ot"):
            for name, method in {LOG_LOOP: "sinkhorn_log", PLAIN_LOOP: "sinkhorn"}.items():
                each = [by_pot(method, *one, epsilon, ITERATIONS) for one in zip(a, cost, strict=True)]
                slow[name] = lambda each=each: np.stack([call() for call in each])
            batches = {"POT's solve_batch": cost}
            if not missing("torch"):
                import torch

                torch.set_num_threads(self.threads)
                batches["POT's solve_batch over torch"] = torch.from_numpy(cost)
            for solver, costs in batches.items():
                for method in ("log_sinkhorn", "sinkhorn"):
                    calls[f"{solver}, {method}"] = partial(solve_batch, method, a, costs, epsilon)
                targets[f"{solver}, log_sinkhorn"] = 5.0
        plans = {name: call() for name, call in (calls | slow).items()}
        cells = {name: {"error": error(plan, a)} for name, plan in plans.items()}
        for name, plan in plans.items():
            agree(name, plan, plans[OURS], a)
        self.contest("", calls, self.often, targets, cells)
        if slow:
            self.contest("", {OURS: calls[OURS]} | slow, self.seldom, targets, cells)

    def points(self) -> None:
        self.table(
            f"points, d = {DIMENSION}, {FEW} iterations, each solver in a process of its own; "
            f"target: at most {MOST_MEGABYTES} MB more than before"
        )
        if reason := no_peak_memory():
            self.report.skip("points", reason)
            return
        if absent := missing("geomloss", "torch"):
            self.report.skip("GeomLoss", absent)
        for n in CLOUDS:
            for dtype in ("float32", "float64"):
                contestants = {OURS: partial(in_a_process, _OURS, n, dtype, self.threads, self.level)}
                matrices = (
                    6 * n * n * np.dtype(dtype).itemsize
                )  # GeomLoss's costs, and what it makes of them on the way
                if absent or dtype == "float64":
                    pass  # minutes, for the same ratio
                elif matrices < available_memory():
                    contestants[GEOMLOSS] = partial(in_a_process, _GEOMLOSS, n, dtype, self.threads, self.level)
                else:
                    self.report.skip(f"GeomLoss, n = {n}", f"takes some {matrices / 1e9:.0f} GB")
                turns = interleave(contestants, self.seldom, warm_up=0)
                seconds = {name: Samples.of(turn["seconds"] for turn in turns[name]) for name in turns}
                for name, taken in seconds.items():
                    megabytes = max(turn["bytes"] for turn in turns[name]) / 1e6
                    row = {"n": n, "dtype": dtype, "by": name, "seconds": taken, "MB": megabytes}
                    row |= {"error": turns[name][0]["error"], "ns a pair": taken * (1e9 / (FEW * n * n))}
                    if name == OURS:
                        row["met"] = met(megabytes <= MOST_MEGABYTES)
                    else:
                        row[f"/ {OURS}"] = taken / seconds[OURS]
                    self.report.row(**row)

    def sinkd(self) -> None:
        self.table(f"SinKD's loss and its gradient, {SINKD_ROWS} rows, vocabulary {SINKD_VOCAB}, float32")
        generator = np.random.default_rng(0)
        student, teacher = 4 * generator.standard_normal((2, SINKD_ROWS, SINKD_VOCAB), np.float32)
        found = sinkhorn_loss(student, teacher)
        calls: dict[str, Call] = {
            OURS: partial(sinkhorn_loss, student, teacher),
            f"{OURS}, entropic": partial(sinkhorn_loss, student, teacher, mode="entropic"),
        }
        if reason := missing("torch"):
            self.report.skip("torch", reason)
            self.contest("", calls, self.often)
            return
        by_torch = {f"torch, {name}": sinkd_by_torch(student, teacher, name, self.threads) for name in ("cdist", "abs")}
        for name, call in by_torch.items():
            value, gradient = call()
            np.testing.assert_allclose(found.value, value, rtol=1e-4, err_msg=name)
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(found.gradient, gradient, rtol=1e-3, atol=1e-4 * scale, err_msg=name)
        faster = min(by_torch, key=lambda name: Timer(by_torch[name])())
        self.contest("", calls | by_torch, self.often, {faster: 5.0})


OURS, GEOMLOSS = "ours", "GeomLoss, tensorized"
PLAIN, LOG = "POT's sinkhorn", "POT's sinkhorn_log"
POT = {PLAIN: "sinkhorn", "POT's sinkhorn_stabilized": "sinkhorn_stabilized", LOG: "sinkhorn_log"}
LOG_LOOP, PLAIN_LOOP = "a loop over POT's sinkhorn_log", "a loop over POT's sinkhorn"


def met(reached: bool) -> str:
    return "yes" if reached else "NO"


def solve_batch(method: str, a: np.ndarray, costs: Any, epsilon: float) -> np.ndarray:
    """POT's batch solver, over NumPy's arrays or torch's."""
    from ot.batch import solve_batch

    masses = a if isinstance(costs, np.ndarray) else costs.new_tensor(a)
    result = solve_batch(costs, epsilon, masses, max_iter=ITERATIONS, tol=0.0, method=method, grad="detach")
    return np.asarray(result.plan)


def sinkd_by_torch(student: np.ndarray, teacher: np.ndarray, distance: str, threads: int) -> Call:
    """SinKD's loss with its defaults, and autograd's gradient, as arrays."""
    import torch

    torch.set_num_threads(threads)
    logits, targets = torch.from_numpy(student).requires_grad_(), torch.from_numpy(teacher)

    def call() -> tuple[float, np.ndarray]:
        x, y = (torch.softmax(rows / 2.0, dim=-1) for rows in (logits, targets))
        cost = torch.cdist(x, y, p=1) if distance == "cdist" else (x[:, None] - y).abs().sum(-1)
        plan = torch.exp(-cost / 0.1)
        for _ in range(20):
            plan = plan / plan.sum(1, keepdim=True)
            plan = plan / plan.sum(0, keepdim=True)
        loss = (plan * cost).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        return loss.item(), gradient.numpy()

    return call


def available_memory() -> int:
    """Bytes that can be had without paging."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def in_a_process(solver: str, n: int, dtype: str, threads: int, level: str) -> dict[str, float]:
    """Seconds, bytes at most beyond what the process held before, and the error, of a solver over points."""
    command = [sys.executable, "-c", _POINTS + solver + _PEAK, level]
    command += [str(number) for number in (n, DIMENSION, FEW, threads)] + [dtype]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


# What a process over points runs: the points, a solver, and the measurement.  `solve` gives potentials of entropy relative to
# the masses and of squared distances.
_POINTS = """
import json, re, sys, time
import numpy as np
level, n, d, iterations, threads, dtype = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
generator = np.random.default_rng(0)
x, y = generator.standard_normal((2, n, d)).astype(dtype)
y += 0.5
epsilon = 0.1 * 2 * d  # of about the median cost
"""
_OURS = """
from fastdistill.kernels import set_isa
from fastdistill.transport import sinkhorn
set_isa(level)
def solve(x, y, iterations):
    found = sinkhorn(None, None, x=x, y=y, epsilon=epsilon, max_iterations=iterations, tolerance=0.0, threads=threads)
    return found.potentials
"""
# GeomLoss updates both potentials once before its schedule of epsilons, once for each, and once after it: its cost is half
# the squared distance.
_GEOMLOSS = """
import torch
from geomloss import SamplesLoss
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
def solve(x, y, iterations):
    blur = (epsilon / 2) ** 0.5
    loss = SamplesLoss(
        blur=blur, diameter=blur * 2 ** (iterations - 4.5), scaling=0.5, debias=False, potentials=True, backend="tensorized"
    )
    return [2 * potential.numpy().ravel() for potential in loss(torch.from_numpy(x), torch.from_numpy(y))]
"""
_PEAK = r"""
def peak():
    return int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) * 1024
solve(x[:64], y[:64], iterations)
before, started = peak(), time.perf_counter()
f, g = (potential.astype(np.float64) for potential in solve(x, y, iterations))
seconds, more = time.perf_counter() - started, peak() - before
columns, error = np.zeros(n), 0.0
for rows in np.array_split(np.arange(n), -(-n // 500)):
    cost = (x[rows] ** 2).sum(1)[:, None] + (y**2).sum(1) - 2 * x[rows] @ y.T
    plan = np.exp((f[rows, None] + g - cost) / epsilon) / n**2
    columns += plan.sum(0)
    error += np.abs(plan.sum(1) - 1 / n).sum()
print(json.dumps({"seconds": seconds, "bytes": more, "error": max(error, np.abs(columns - 1 / n).sum())}))
"""
