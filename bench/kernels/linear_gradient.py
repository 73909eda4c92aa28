"""A float32 linear, (512 x 576) (576 x 1536), and its gradients by input and by matrix, as shares of the multiply-adds that the machine can do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.machine import multiply_adds
from bench.lib.report import Report
from bench.lib.timing import Samples, Timer, interleave
from fastdistill.checkpoint import Tensor
from fastdistill.kernels import isa, set_isa
from fastdistill.models.builder import Builder
from fastdistill.runtime.forward_pass import ForwardPass
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.train.differentiate import BY_INPUTS, INPUTS, differentiate, reverse_segments
from fastdistill.train.parameters import TrainedWeights

MATRIX, OUTPUT = "w.weight", "y"
PRODUCTS = {"linear": "x W^T", "linear_input_gradient": "dy W", "linear_weight_gradient": "dy^T x"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=512, help="of x (default: %(default)s)")
    parser.add_argument(
        "--shape", default="1536x576", metavar="OUTxIN", help="of the matrix (default: %(default)s, SmolLM2's up)"
    )


class Linear:
    """One linear and its reverse, as a plan runs them on one level."""

    def __init__(self, level: str, threads: int, x: np.ndarray, matrix: np.ndarray, dy: np.ndarray) -> None:
        set_isa(level)
        self._level, self._dy, inputs = level, dy, matrix.shape[1]
        b = Builder()
        y = b.op("linear", b.op("given", width=inputs), weights={MATRIX: matrix.shape})
        plan = b.plan(y, {OUTPUT: y}, {}, vocab_size=1, hidden_size=inputs, max_positions=1, architecture="none")
        made = differentiate(plan, {MATRIX, INPUTS}, OUTPUT, over=True)
        weights = TrainedWeights(plan, {MATRIX: Tensor(MATRIX, "f32", matrix.shape, matrix)}, {MATRIX}, None, threads)
        self._gradient = weights.parameters[MATRIX]
        self._executor = NativeExecutor(made, weights, len(x), threads)
        self._values = made.outputs
        rows, zeros = np.arange(len(x), dtype=np.int32), np.zeros(len(x), np.int32)
        runs = np.array([[0, 1]], np.int32)  # nobody attends
        self._pass = ForwardPass(rows, zeros, runs, np.array([0, 1]), [], None, x, zeros, zeros, rows, phase="forward")
        self._reverse = reverse_segments(made)

    def check(self, x: np.ndarray, matrix: np.ndarray) -> None:
        self._gradient.gradient[:] = 0
        self._run()
        rounding = 2.0**-24 * (2 + max(*matrix.shape, len(x)))
        for found, left, right in (
            (self._of_forward, x, matrix.T),
            (self._executor.value(self._values[BY_INPUTS], len(x)), self._dy, matrix),
            (self._gradient.to_array(self._gradient.gradient), self._dy.T, x),
        ):
            assert (np.abs(found - left @ right) <= 2 * rounding * (np.abs(left) @ np.abs(right))).all()

    def __call__(self) -> dict[str, float]:
        """Seconds of each product."""
        set_isa(self._level)
        with fd.Profile() as profile:
            self._run()
        stages = profile.forward.stages | profile.reverse.stages
        return {kind: stages[f"{kind} w"].seconds for kind in PRODUCTS}

    def _run(self) -> None:
        executor, request = self._executor, self._pass
        request.segments, request.phase = (), "forward"
        executor.run(request)
        output = executor.value(self._values[OUTPUT], request.rows)
        self._of_forward = output.copy()
        output[:] = self._dy
        request.segments, request.phase = self._reverse, "reverse"
        executor.run(request)


def peak(level: str, threads: int) -> dict[str, float]:
    return {"peak": 2 * multiply_adds(level, "f32", False, threads)}


def run(options: Namespace) -> Report:
    report, before = Report(__doc__), isa()
    outputs, inputs = map(int, options.shape.split("x"))
    random = np.random.default_rng(0)
    x, matrix, dy = (
        random.standard_normal(shape, np.float32)
        for shape in ((options.rows, inputs), (outputs, inputs), (options.rows, outputs))
    )
    blas = {"linear": (x, matrix.T), "linear_input_gradient": (dy, matrix), "linear_weight_gradient": (dy.T, x)}
    timers = {kind: Timer(partial(np.matmul, *pair)) for kind, pair in blas.items()}
    contestants: dict[tuple[Any, ...], Callable[[], dict[str, float]]] = {
        ("numpy", max(options.threads)): lambda: {kind: timer() for kind, timer in timers.items()}
    }
    for level in options.levels:
        for threads in options.threads if level != "scalar" else ():
            linear = contestants[level, threads] = Linear(level, threads, x, matrix, dy)
            linear.check(x, matrix)
    peaks = {("peak", *pair): partial(peak, *pair) for pair in contestants if pair[0] != "numpy"}
    found = interleave(contestants | peaks, options.repetitions)  # in turn: whatever slows one slows the other
    operations = 2 * options.rows * outputs * inputs
    for kind, formula in PRODUCTS.items():
        theirs = Samples.of(each[kind] for each in found["numpy", max(options.threads)])
        for level, threads in contestants:
            seconds = Samples.of(each[kind] for each in found[level, threads])
            cells: dict[str, Any] = {"product": formula, "level": level, "threads": threads}
            cells |= {"microseconds": seconds * 1e6, "Gop/s": operations * 1e-9 / seconds}
            if level != "numpy":
                of_peak = operations / seconds.median / max(each["peak"] for each in found["peak", level, threads])
                cells["of peak"] = f"{of_peak:.0%}"
            report.row(**cells, **{"x numpy": theirs / seconds})
    set_isa(before)
    report.note(
        "Of peak: the median, of the most that registers alone can do, by the level's own words on as many threads (bench/lib/peak.c)."
    )
    report.skip("scalar", "it is there for meaning")
    return report
