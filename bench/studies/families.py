"""Models of several families beside llama.cpp on the same weights, and what a large vocabulary's head costs.

Each model is exported as a GGUF file, q8 as Q8_0 and q4 as Q4_1, so that both engines hold the same numbers.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

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
DRAWS = 20  # forwards, or draws, of one turn
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
    ids: list[int]
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
    report.note(f"medians and quartiles of {options.repetitions} turns; ratios are of turns in the same round")
    return report


def entrant(name: str, options: Namespace, threads: int, beside: bool) -> Entrant:
    which, _, format = name.partition(":")
    work = Path(tempfile.gettempdir()) / "fastdistill-bench"
    if which == QWEN:
        folder = random_folder(work / QWEN, QWEN_CONFIG, cached_folder(MODEL))
    else:
        folder = find_folder(which)
    model = fd.load(folder, format or None, threads)
    ids = model.tokenizer.encode(passage())
    ids = (ids * -(-PREFILL // len(ids)))[:PREFILL]
    session = model.session(PREFILL, max_rows=PREFILL)
    found = Entrant(name, Ours(session, options.levels[-1], ids), session, ids)
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
        (one.name, work, name): engine.turn(work)
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
                report.row(**cells, beside=peer, its_ms=theirs * 1e3, ratio=theirs / ours, same_tokens=same)
            if not one.peers:
                report.row(**cells)


def _agreement(ours: Engine, other: Engine, work: Work) -> str:
    """Of how many rows both give the same likeliest token."""
    ours.enter()
    found = ours.forward(work).copy()
    return f"{int((found == other.forward(work)).sum())} of {len(found)}"


def heads(report: Report, options: Namespace, entrants: list[Entrant], threads: int, level: str) -> None:
    """A row a model: the head of a forward of one row, and how a token comes of it."""
    turns: dict[tuple[str, str], Callable[[], object]] = {}
    for one in entrants:
        one.ours.hold(CACHED)
        turns[one.name, "argmax"] = partial(profiled, one, Read())
        turns[one.name, "drawn"] = partial(profiled, one, Read(sampler=fd.Sampler(temperature=1.0)))
        for peer in list(one.peers.values())[:1]:  # its samplers see logits alone
            for name, temperature in (("argmax", 0.0), ("drawn", 1.0)):
                turns[one.name, f"its {name}"] = Timer(peer.llama.drawing(temperature), partial(peer.forward, WORKS[0]))
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
        for name in ("argmax", "drawn"):
            if (one.name, f"its {name}") in found:
                cells[f"llama.cpp's {name}, beyond logits, ms"] = Samples.of(found[one.name, f"its {name}"]) * 1e3
        report.row(**cells)
    report.note(f"bandwidth with {threads} threads: {memory * 1e-9:.1f} GB/s")


def profiled(one: Entrant, read: Read) -> tuple[float, float, int, int]:
    """Seconds of the head and of all stages of a forward, the mean of some, and the bytes that each read."""
    session = one.session
    for counted in (fd.Profile(), fd.Profile()):  # the first wakes the threads
        with counted as profile:
            for _ in range(DRAWS):
                session.truncate(CACHED)
                session.forward(one.ids[CACHED : CACHED + 1], read=read)
    phase = profile.decode
    head = [stages for name, stages in phase.stages.items() if name.startswith("head")]
    seconds, size = sum(part.seconds for part in head), sum(part.bytes for part in head)
    return seconds / DRAWS, phase.total.seconds / DRAWS, size // DRAWS, phase.total.bytes // DRAWS
