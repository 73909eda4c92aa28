"""A step of masked diffusion: a forward of listops-mdlm, and what statistics and selection cost beside a head of LLaDA's size.

The forward has its rows in one node, reads those that are masked and bans the mask token.  Beside it stands a head with LLaDA's
vocabulary over next to nothing: of a real model, the head and what follows it are a smaller part.

What statistics cost is found twice: as what the head takes beyond a linear of the same weights in the same forward, which
writes its logits to memory, as the head does not; and as what row_statistics takes for as many logits that lie in the
cache.  The larger figure counts.  Selection is unmask_select with a threshold.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial

import numpy as np

import fastdistill as fd
from bench.lib.limits import Limits, cost_of
from bench.lib.report import Report
from bench.lib.timing import Samples, Timer, interleave
from fastdistill import kernels
from fastdistill.checkpoint import Tensor
from fastdistill.kernels import default_threads, isa, row_statistics, set_isa
from fastdistill.models.builder import Builder
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read, Rows

PROMPT, ROWS = 15, 40  # of listops-mdlm: what it was trained on, and a longer answer than it gives
VOCAB, WIDTH, MASKED = 126464, 1024, 32  # LLaDA's vocabulary, a block of 32
CACHED = 1 << 16  # logits that lie in the second cache
THRESHOLD = 0.9
MOST_MILLISECONDS, MOST_SHARE = 1.0, 0.05  # targets
CALLS = 20  # forwards of one turn of the small model


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(threads=[min(2, default_threads())], levels=[isa()])
    parser.add_argument("--width", type=int, default=WIDTH, help="of the large head's input (default: %(default)s)")
    parser.add_argument("--formats", default="f32,q8", help="of the large head (default: %(default)s)")


def run(options: Namespace) -> Report:
    report, before = Report(__doc__), isa()
    try:
        for threads in options.threads:
            report.table(f"listops-mdlm: {ROWS} rows, {ROWS - PROMPT} of them masked; threads: {threads}")
            small = fd.load("listops-mdlm", threads=threads).network
            for level in options.levels:
                set_isa(level)
                add_forward(report, options, small, level)
            report.table(f"{MASKED} masked rows, vocabulary {VOCAB}, width {options.width}; threads: {threads}")
            for format in options.formats.split(","):
                large = large_network(format, options.width, threads)
                for level in options.levels:
                    set_isa(level)
                    add_large(report, options, large, format, level)
    finally:
        set_isa(before)
    if not hasattr(kernels, "unmask_select"):
        report.skip("selection", "there is no unmask_select")
    report.note(
        f"targets: the forward < {MOST_MILLISECONDS:g} ms; statistics and selection < {MOST_SHARE:.0%} of the large head's forward"
    )
    return report


def add_forward(report: Report, options: Namespace, network: Network, level: str) -> None:
    """One line: a forward of listops-mdlm, what limits it, and parts of it."""
    forward = masked_forward(network, ROWS, np.arange(PROMPT, ROWS), network.plan.mask_token)
    turns = interleave({"forward": Stopwatch(forward, CALLS), "selection": selection(forward)}, options.repetitions)
    whole, head, rest = (Samples.of(turn[part] for turn in turns["forward"]) for part in ("whole", "head", "rest"))
    limits, cost, plan = Limits(network.threads), cost_of(network), network.plan
    limits.measure({(level, "f32")})
    work = ROWS * cost.row["f32"] + (ROWS - PROMPT) * cost.read_row["f32"]
    work += 2 * ROWS * ROWS * plan.num_heads * plan.head_dim * plan.num_layers  # attention: scores, and their average
    seconds = {
        "multiply-adds": work / limits.rates[level, "f32", False],
        "memory": cost.weight_bytes / limits.bandwidth,
    }
    ruling = max(seconds, key=lambda name: seconds[name])
    report.row(
        level=level,
        milliseconds=whole * 1e3,
        **{"GFLOP/s": 2e-9 * work / whole, "limit": f"{ruling}, {seconds[ruling] * 1e3:.3f} ms"},
        of_limit=f"{seconds[ruling] / whole.median:.0%}",
        **{"% head": head / whole * 100},
        **{"% selection": Samples.of(turns["selection"]) / whole * 100, "% outside C": rest / whole * 100},
        met="yes" if whole.median * 1e3 < MOST_MILLISECONDS else "no",
    )


def add_large(report: Report, options: Namespace, network: Network, format: str, level: str) -> None:
    """One line: a forward that is nearly all head, the bare product, statistics and selection."""
    forward = masked_forward(network, MASKED, np.arange(MASKED), VOCAB - 1)
    cached = np.random.default_rng(2).standard_normal((8, CACHED // 8), np.float32)
    contestants = {
        "forward": Stopwatch(forward, 1),
        "statistics": Timer(partial(row_statistics, cached)),
        "selection": selection(forward),
    }
    turns = interleave(contestants, options.repetitions)
    both, head, product = (Samples.of(turn[part] for turn in turns["forward"]) for part in ("whole", "head", "product"))
    whole = Samples(both.values - product.values)
    beyond = Samples(head.values - product.values) / whole
    statistics = Samples.of(turns["statistics"]) * (MASKED * VOCAB / CACHED / network.threads) / whole
    select = Samples.of(turns["selection"]) / whole
    share = max(beyond.median, statistics.median) + select.median
    report.row(
        format=format,
        level=level,
        milliseconds=whole * 1e3,
        head=head * 1e3,
        product=product * 1e3,
        **{"% beyond it": beyond * 100, "% statistics": statistics * 100, "% selection": select * 100},
        met="yes" if share < MOST_SHARE else "no",
    )


def masked_forward(network: Network, rows: int, masked: np.ndarray, mask: int) -> Callable[[], Rows]:
    """A forward of so many rows in one node that reads the masked ones; the session is empty before and after."""
    session = network.session(1, max_rows=rows)
    ids = np.random.default_rng(0).integers(0, session.vocab_size, rows).astype(np.int32)
    ids[masked] = mask
    nodes, reads, read = np.zeros(rows, np.int32), masked.astype(np.int32), Read(banned=np.array([mask], np.int32))

    def forward() -> Rows:
        result = session.forward(ids, nodes=nodes, parents=[-1], rows=reads, read=read)
        session.truncate(0)
        return result

    return forward


class Stopwatch:
    """A contestant that gives the seconds of one of `calls` forwards, and of parts of it as a profile sees them."""

    def __init__(self, forward: Callable[[], Rows], calls: int) -> None:
        self._forward, self._calls = forward, calls

    def __call__(self) -> dict[str, float]:
        started = time.perf_counter()
        for _ in range(self._calls):
            self._forward()
        whole = time.perf_counter() - started
        with fd.Profile() as profile:
            for _ in range(self._calls):
                self._forward()
        stages = profile.prefill.stages | profile.decode.stages
        seconds = {
            "head": stages["head"].seconds + stages["head_merge"].seconds,
            "product": stages["linear head"].seconds if "linear head" in stages else 0.0,
            "rest": profile.prefill.rest_seconds + profile.decode.rest_seconds,
        }
        scale = whole / profile.seconds / self._calls  # those that are not recorded count
        return {"whole": whole / self._calls} | {part: taken * scale for part, taken in seconds.items()}


def selection(forward: Callable[[], Rows]) -> Callable[[], float]:
    """A contestant that gives the seconds of choosing among the rows that the forward reads; 0 without the kernel."""
    if not hasattr(kernels, "unmask_select"):
        return lambda: 0.0
    statistics = forward().statistics
    masked, rule = np.ones(len(statistics.argmax), bool), kernels.UnmaskRule(threshold=THRESHOLD)
    return Timer(partial(kernels.unmask_select, statistics, masked, rule))


def large_network(format: str, width: int, threads: int) -> Network:
    """A head with LLaDA's vocabulary, and before it a linear of the same weights, whose result nobody reads."""
    b = Builder()
    x = b.embedding("head.weight", VOCAB, width)
    with b.layer(0, x):
        leaving = b.add(x, b.linear(x, "layer", width))
        b.linear(leaving, "head", VOCAB)
    hidden = b.rms_norm(b.read(leaving), "norm.weight", 1e-5)
    outputs = {"logits": b.head(hidden, "head", VOCAB), "hidden": hidden}
    plan = b.plan(leaving, outputs, {}, vocab_size=VOCAB, hidden_size=width, max_positions=256, architecture="none")
    random, tensors = np.random.default_rng(0), {}
    for name, weight in plan.weights.items():
        data = random.standard_normal(weight.shape, np.float32)
        data *= 3 * width**-0.5 if data.ndim == 2 else 1  # logits some nats apart
        tensors[name] = Tensor(name, "f32", weight.shape, data)
    return Network(plan, tensors, format, threads=threads)
