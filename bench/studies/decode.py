"""Greedy tokens a second and prompt tokens a second on the real model, beside llama.cpp on the same weights.

The engines take turns with the same prompt, number of tokens, number of threads and size of context.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fastdistill as fd
from bench.lib.machine import bandwidth
from bench.lib.models import add_model_arguments, no_llama_cpp, passage
from bench.lib.peers import LlamaCpp
from bench.lib.report import Report
from bench.lib.timing import Samples, interleave
from fastdistill.kernels import default_threads, isa, set_isa

PAUSE = 0.05  # seconds: longer than any of the thread pools spins


class Ours:
    """fastdistill with the same two methods as peers.LlamaCpp."""

    def __init__(self, model: fd.Model, capacity: int, level: str) -> None:
        self._session, self._level = model.session(capacity=capacity, max_rows=512), level

    def clear(self) -> None:
        set_isa(self._level)
        self._session.truncate(0)

    def forward(self, tokens: Sequence[int]) -> int:
        return int(self._session.prefill(tokens).statistics.argmax[0])


def prefill(engine: Any, ids: list[int]) -> float:
    """Seconds of a prompt, its first token included."""
    engine.clear()
    started = time.perf_counter()
    engine.forward(ids)
    return time.perf_counter() - started


def decode(engine: Any, ids: list[int], count: int) -> tuple[float, list[int]]:
    """Seconds of `count` forwards after a prompt, and the tokens."""
    engine.clear()
    tokens = [engine.forward(ids)]
    started = time.perf_counter()
    for _ in range(count):
        tokens.append(engine.forward(tokens[-1:]))
    return time.perf_counter() - started, tokens


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=9)
    parser.add_argument("--format", help="convert the weights (default: as stored)")
    parser.add_argument("--context", type=int, default=128, help="tokens cached before decoding (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="forwards of one token a turn (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prefill (default: %(default)s)")


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    most = max(options.threads)
    memory = bandwidth(most)
    capacity = max(options.context + options.tokens + 1, options.prompt)
    engines: dict[tuple[str, str, int], Any] = {}
    for threads in options.threads:
        model = fd.load(options.model, format=options.format, threads=threads)
        for level in options.levels:
            engines["fastdistill", level, threads] = Ours(model, capacity, level)
    reason = no_llama_cpp(options.gguf)
    if reason:
        report.skip("llama.cpp", reason)
    else:
        for threads in options.threads:
            engines["llama.cpp", "-", threads] = LlamaCpp(options.gguf, capacity, threads)
    ids = model.tokenizer.encode(passage())
    ids = (ids * -(-capacity // len(ids)))[:capacity]
    context = ids[: options.context]
    before = isa()

    texts = {key: decode(engine, context, options.tokens)[1] for key, engine in engines.items()}
    expected = fd.decode.generate(model.session(capacity=capacity), context, options.tokens + 1).tokens
    for key, tokens in texts.items():
        assert key[0] != "fastdistill" or tokens == expected, f"{key} wrote other tokens than generate"

    def turns(work: Callable[..., Any], *arguments: Any) -> dict[tuple[str, str, int], list[Any]]:
        return interleave(
            {key: partial(work, engine, *arguments) for key, engine in engines.items()}, options.repetitions, PAUSE
        )

    decoding = {
        key: Samples.of(seconds for seconds, _ in found)
        for key, found in turns(decode, context, options.tokens).items()
    }
    prompts = {key: Samples.of(found) for key, found in turns(prefill, ids[: options.prompt]).items()}
    set_isa(before)
    memory = max(
        memory, bandwidth(most)
    )  # what others took of it at one end of the run, they may have left at the other
    nbytes = model.network.weights.nbytes
    for key, seconds in decoding.items():
        engine, level, threads = key
        cells = {"decode tokens/s": options.tokens / seconds, "prefill tokens/s": options.prompt / prompts[key]}
        if engine == "fastdistill":
            cells["of bandwidth"] = f"{options.tokens / seconds.median * nbytes / memory:.0%}"
            if not reason:
                peer = "llama.cpp", "-", threads
                cells |= {
                    "decode / llama.cpp": decoding[peer] / seconds,
                    "prefill / llama.cpp": prompts[peer] / prompts[key],
                }
                agree = [ours == theirs for ours, theirs in zip(texts[key], texts[peer], strict=True)]
                cells["same tokens"] = f"first {[*agree, False].index(False)} of {len(agree)}"
        report.row(engine=engine, level=level, threads=threads, **cells)
    report.note(
        f"{options.context} tokens cached, {options.tokens} decoded; prefill of {options.prompt}; {options.repetitions} turns"
    )
    report.note(f"packed weights {nbytes * 1e-6:.1f} MB, bandwidth {memory * 1e-9:.1f} GB/s")
    if not reason:
        report.note(f"llama-cpp-python {engines['llama.cpp', '-', most].version}, {options.gguf.name}")
    return report
