"""Models of several families beside llama.cpp on the same weights, and what a large vocabulary's head costs.

Each model is exported as a GGUF file, q8 as Q8_0 and q4 as Q4_1, so that both engines hold the same numbers.
"""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fastdistill as fd
from bench.lib.engines import PREFILL, Engine, Llama, Ours, Work
from bench.lib.machine import bandwidth
from bench.lib.models import MODEL, exported, passage, random_folder
from bench.lib.peers import missing
from bench.lib.report import Report
from bench.lib.timing import Samples, Timer, interleave
from fastdistill.errors import ArgumentError
from fastdistill.fetch import cached_folder, find_folder
from fastdistill.kernels import default_threads, isa, set_isa
from fastdistill.runtime.read import Read

PAUSE = 0.05  # seconds: longer than any of the thread pools spins
CACHED, ROWS = 128, (1, 4, 8)
WORKS = (*(Work(CACHED, rows) for rows in ROWS), Work(0, PREFILL))
SAME = "its export"
DRAWS, LONGEST = 20, 0.3  # of one turn: forwards, and seconds after which none begins
# A head of 152,000 tokens, and norms of queries and keys.
QWEN, QWEN_CONFIG = "qwen3-0.6b", {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=9)
    parser.add_argument(
        "--models",
        default=f"{MODEL},{QWEN},gemma3-270m:q8,gemma3-270m:q4",
        metavar="MODEL[:FORMAT],...",
        help=f"folders or names; {QWEN} is made, with random weights in q4 (default: %(default)s)",
    )
    parser.add_argument(
        "--gguf",
        action="append",
        default=[],
        metavar="MODEL[:FORMAT]=FILE",
        help="beside this one, llama.cpp on this file, too",
    )


@dataclass
class Entrant:
    """A model: fastdistill's session, and llama.cpp's by what they hold."""

    name: str
    ours: Ours
    session: fd.runtime.Session
    peers: dict[str, Llama] = field(default_factory=dict)

    @property
    def engines(self) -> dict[str, Engine]:
        return {"": self.ours, **self.peers}


def run(options: Namespace) -> Report:
    report, before = Report(__doc__), isa()
    reason = missing("llama_cpp")
    if reason:
        report.skip("llama.cpp", reason)
    level = options.levels[-1]
    try:
        for threads in options.threads:
            entrants = [entrant(name, options, threads, reason is None) for name in options.models.split(",")]
            forwards(report, options, entrants, threads, level)
            heads(report, options, entrants, threads, level)
    finally:
        set_isa(before)
    report.note(f"{CACHED} tokens cached before forwards of {', '.join(map(str, ROWS))}, none before {PREFILL}")
    report.note(
        f"of {options.repetitions} turns, each the least of up to {DRAWS} forwards: medians and quartiles; ratios are of turns in the "
        "same round, of bests: of the least of all turns"
    )
    return report


def entrant(name: str, options: Namespace, threads: int, beside: bool) -> Entrant:
    which, _, format = name.partition(":")
    work = Path(tempfile.gettempdir()) / "fastdistill-bench"
    made = which == QWEN
    folder = random_folder(work / QWEN, QWEN_CONFIG, cached_folder(MODEL)) if made else find_folder(which)
    model = fd.load(folder, format or None, threads)
    ids = model.tokenizer.encode(passage())
    ids = (ids * -(-PREFILL // len(ids)))[:PREFILL]
    session = model.session(PREFILL, max_rows=PREFILL)
    found = Entrant(name, Ours(session, options.levels[-1], ids), session)
    if beside:
        files = {SAME: exported(folder, format or None, work)}
        for given in options.gguf:
            of, _, path = given.partition("=")
            if not path:
                raise ArgumentError(f"--gguf takes MODEL=FILE, got {given}")
            if of == name:
                files[Path(path).name] = Path(path)
        found.peers = {name: Llama(path, PREFILL, threads, ids) for name, path in files.items()}
    return found


def forwards(report: Report, options: Namespace, entrants: list[Entrant], threads: int, level: str) -> None:
    """A row a model, work and file: both engines' times and their ratio."""
    turns = {
        (one.name, work, name): partial(least, engine, work)
        for work in WORKS
        for one in entrants
        for name, engine in one.engines.items()
    }
    taken = {key: Samples.of(found) for key, found in interleave(turns, options.repetitions, PAUSE).items()}
    report.table(f"forwards, threads: {threads}, level: {level}")
    for one in entrants:
        for work in WORKS:
            ours = taken[one.name, work, ""]
            cells = {"model": one.name, "rows": work.rows, "ms": ours * 1e3}
            for peer, engine in one.peers.items():
                theirs = taken[one.name, work, peer]
                same = _agreement(one.ours, engine, work)
                best = theirs.values.min() / ours.values.min()
                report.row(
                    **cells, beside=peer, its_ms=theirs * 1e3, ratio=theirs / ours, of_bests=best, same_tokens=same
                )
            if not one.peers:
                report.row(**cells)


def least(engine: Engine, work: Work) -> float:
    """Seconds of the quickest of some forwards: what others on the machine take away is not in it."""
    engine.enter()
    if not work.is_prefill:
        engine.forward(work)  # wakes the threads
    taken: list[float] = []
    while len(taken) < DRAWS and sum(taken) < LONGEST:
        engine.hold(work.cached)
        started = time.perf_counter()
        engine.forward(work)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _agreement(ours: Engine, other: Engine, work: Work) -> str:
    """Of how many rows both give the same likeliest token."""
    ours.enter()
    found = ours.forward(work).copy()
    return f"{int((found == other.forward(work)).sum())} of {len(found)}"


def heads(report: Report, options: Namespace, entrants: list[Entrant], threads: int, level: str) -> None:
    """A row a model: the head of a forward of one row, and how a token comes of it."""
    turns: dict[tuple[str, str], Callable[[], Any]] = {}
    for one in entrants:
        one.ours.hold(CACHED)
        turns[one.name, "argmax"] = partial(profiled, one, Read())
        turns[one.name, "drawn"] = partial(profiled, one, Read(sampler=fd.Sampler(temperature=1.0)))
        for peer in list(one.peers.values())[:1]:  # its samplers see logits alone
            for name, temperature in (("argmax", 0.0), ("drawn", 1.0)):
                turns[one.name, f"its {name}"] = Timer(peer.llama.drawing(temperature), partial(peer.forward, WORKS[0]))
            turns[one.name, "its logits"] = partial(logits_of, peer)
    memory = bandwidth(threads)
    set_isa(level)
    found = interleave(turns, options.repetitions, PAUSE)
    memory = max(memory, bandwidth(threads))
    report.table(f"the head of a forward of one row, threads: {threads}, level: {level}")
    for one in entrants:
        plan, (head, whole, size, all_bytes) = one.session.network.plan, zip(*found[one.name, "argmax"], strict=True)
        drawn = Samples.of(turn[0] for turn in found[one.name, "drawn"])
        taken, parts = Samples.of(head), Samples.of(head) / Samples.of(whole)
        cells = {"model": one.name, "vocabulary": plan.vocab_size, "MB": size[0] * 1e-6}
        cells |= {"% of bytes": 100 * size[0] / all_bytes[0], "% of time": parts * 100, "ms": taken * 1e3}
        cells |= {"GB/s": size[0] * 1e-9 / taken, "of bandwidth": f"{size[0] / taken.median / memory:.0%}"}
        cells["ms, drawn"] = drawn * 1e3
        for name in ("logits", "argmax", "drawn"):
            if (one.name, f"its {name}") in found:
                cells[f"its {name}, ms"] = Samples.of(found[one.name, f"its {name}"]) * 1e3
        report.row(**cells)
    report.note(
        "its logits: llama.cpp's forward less one that reads no row; argmax, drawn: its samplers on them, greedy and dist"
    )
    report.note(f"bandwidth with {threads} threads: {memory * 1e-9:.1f} GB/s")


def logits_of(peer: Llama) -> float:
    """Seconds of llama.cpp's forward of one row beyond one that reads none: the head, and what it makes of the last layer."""
    peer.hold(CACHED)
    token, llama = peer.ids[CACHED : CACHED + 1], peer.llama

    def seconds(call: Callable[[list[int]], object]) -> float:
        llama.truncate(CACHED)
        started = time.perf_counter()
        call(token)
        return time.perf_counter() - started

    taken = [(seconds(llama.skip), seconds(llama.forward)) for _ in range(DRAWS + 1)][1:]
    llama.truncate(CACHED)
    skipped, read = (min(times) for times in zip(*taken, strict=True))
    return read - skipped


def profiled(one: Entrant, read: Read) -> tuple[float, float, int, int]:
    """Seconds of the head and of all stages of a forward, the least of some, and the bytes that each read."""
    session, found = one.session, []
    for _ in range(DRAWS + 1):  # the first wakes the threads
        session.truncate(CACHED)
        with fd.Profile() as profile:
            session.forward(one.ours.ids[CACHED : CACHED + 1], read=read)
        phase = profile.decode
        head = [stages for name, stages in phase.stages.items() if name.startswith("head")]
        seconds, size = sum(part.seconds for part in head), sum(part.bytes for part in head)
        found.append((phase.total.seconds, seconds, size, phase.total.bytes))
    whole, seconds, size, total = min(found[1:])
    return seconds, whole, size, total
