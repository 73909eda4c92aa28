"""Steps of AdamW of SmolLM2-135M, all weights or, with --lora, pairs of rank 16 on a q8 base: tokens a second and memory beside torch's in float32."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.lib.machine import multiply_adds
from bench.lib.models import add_model_argument
from bench.lib.peers import missing
from bench.lib.processes import no_peak_memory
from bench.lib.report import Report
from bench.lib.timing import Samples, interleave
from bench.lib.trainers import Trainer
from fastdistill.kernels import isa

SHAPES = "1x256,1x512,4x512"
KINDS = ("ours", "ours, layers run again", "torch")
# Of the first loss, ours beside torch's: float32 on both sides, or ours on weights and rows in q8.
NEAR = {False: 1e-4, True: 0.05}
PAUSE = 0.3  # seconds before a turn: the pool of the one before it has gone to sleep


def add_arguments(parser: ArgumentParser) -> None:
    add_model_argument(parser)
    parser.add_argument(
        "--lora", action="store_true", help="train pairs of low rank, ours on a q8 base, torch's with peft"
    )
    parser.add_argument(
        "--shapes", default=SHAPES, metavar="NxL,...", help="sequences x tokens of a step (default: %(default)s)"
    )
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.set_defaults(repetitions=7)


def run(options: Namespace) -> Report:
    report, threads = Report(__doc__), max(options.threads)
    absent = missing("torch", "transformers", *(["peft"] if options.lora else []))
    if absent and not options.no_torch:
        report.skip("torch", absent)
    kinds = KINDS[:2] if absent or options.no_torch else KINDS
    peak = 2 * multiply_adds(isa(), "f32", False, threads)
    stages: dict[str, Any] = {}
    for shape in options.shapes.split(","):
        sequences, length = map(int, shape.split("x"))
        with ExitStack() as stack:
            trainers = {
                kind: stack.enter_context(Trainer(kind, options.lora, options.model, threads, sequences, length))
                for kind in kinds
            }
            found = interleave(
                {kind: partial(trainer.ask, "step") for kind, trainer in trainers.items()}, options.repetitions, PAUSE
            )
            first = {kind: turns[0]["loss"] for kind, turns in found.items()}
            for loss in first.values():
                theirs = first.get("torch", loss)
                assert abs(loss - theirs) <= NEAR[options.lora] * theirs, f"losses differ: {first}"
            held = {
                kind: float("nan") if no_peak_memory() else trainer.ask("memory") for kind, trainer in trainers.items()
            }
            stages[shape] = trainers["ours"].ask("profile")
        seconds = {kind: Samples.of(turn["seconds"] for turn in turns) for kind, turns in found.items()}
        for kind, taken in seconds.items():
            cells: dict[str, Any] = {
                "shape": shape,
                "trainer": kind,
                "threads": threads,
                "tokens/s": sequences * length / taken,
            }
            cells["peak MB"] = held[kind] / 1e6
            if "torch" in seconds:
                cells["x torch"] = seconds["torch"] / taken
                cells["of its memory"] = f"{held[kind] / held['torch']:.0%}"
            report.row(**cells)
    for shape, phases in stages.items():
        report.table(f"stages of ours, {shape}")
        whole = sum(phase["seconds"] for phase in phases.values())
        every = [
            (phase, name, stage)
            for phase, found_there in phases.items()
            for name, stage in [
                *found_there["stages"].items(),
                ("rest", {"calls": "", "seconds": found_there["rest_seconds"], "operations": 0}),
            ]
        ]
        for phase, name, stage in sorted(every, key=lambda each: -each[2]["seconds"]):
            cells = {"phase": phase, "stage": name, "calls": stage["calls"], "ms": stage["seconds"] * 1e3}
            cells["share"] = f"{stage['seconds'] / whole:.1%}"
            if stage["operations"] and stage["seconds"]:
                speed = stage["operations"] / stage["seconds"]
                cells |= {"Gop/s": speed * 1e-9, "of peak": f"{speed / peak:.0%}"}
            report.row(**cells)
    report.note(
        f"A step is forward, reverse, clipping and AdamW over one batch; torch's is transformers' model with sdpa attention, and AdamW fused. "
        f"Peak MB: of the whole process. Of peak: of {peak * 1e-9:.0f} Gop/s, which {threads} threads do in registers alone (bench/lib/peak.c)."
    )
    return report
