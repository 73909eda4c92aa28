"""An encoder-decoder of T5-small's size beside CTranslate2's int8: greedy and four beams, the same random weights."""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.peers import missing
from bench.lib.report import Report
from bench.lib.timing import Samples, interleave
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.kernels import default_threads, isa
from fastdistill.models import plan_for

SMALL: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
SOURCE, NEW, PAUSE = (
    60,
    64,
    0.05,
)  # tokens of the source, and written; seconds: longer than any of the thread pools spins
BEAMS, LEAST = (1, 4), 1.5


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=7)


def run(options: Namespace) -> Report:
    report, threads = Report(__doc__), options.threads[-1]
    with tempfile.TemporaryDirectory(prefix="fastdistill-bench-") as work:
        folder = Path(work) / "model"
        config = fd.checkpoint.Config(SMALL)
        write_checkpoint(folder, SMALL, weights(plan_for(config).stored))
        source = [5 + 37 * i % 30000 for i in range(SOURCE)]
        engines: dict[str, Callable[[int], int]] = {
            format: partial(ours, fd.load(folder, format=format, threads=threads), source)
            for format in ("f32", "q8", "q4")
        }
        if reason := missing("ctranslate2", "torch", "transformers"):
            report.skip("CTranslate2", reason)
        else:
            engines["CTranslate2 int8"] = partial(theirs, converted(folder, Path(work) / "converted", threads), source)
        report.table(f"{NEW} tokens of a source of {SOURCE}; threads: {threads}, level: {isa()}")
        for beams in BEAMS:
            turns = {name: partial(seconds, write, beams) for name, write in engines.items()}
            taken = {name: Samples.of(found) for name, found in interleave(turns, options.repetitions, PAUSE).items()}
            for name, found in taken.items():
                report.row(
                    beams=beams, engine=name, ms=found * 1e3, tokens_a_second=NEW / found, times_q8=found / taken["q8"]
                )
            if "CTranslate2 int8" in taken:
                ratio = (taken["CTranslate2 int8"] / taken["q8"]).median
                reached = "reached" if ratio >= LEAST else "not reached"
                report.note(
                    f"beams: {beams}: q8 {ratio:.2f} times as fast as CTranslate2's int8; at least {LEAST:g} asked: {reached}"
                )
    report.note(
        f"medians and quartiles of {options.repetitions} turns; weights are random, and both write {NEW} tokens whatever they are"
    )
    return report


def weights(stored: Mapping[str, tuple[int, ...]]) -> Iterator[fd.checkpoint.Tensor]:
    """Random numbers that keep activations near one."""
    random = np.random.default_rng(0)
    for name, shape in stored.items():
        data = random.standard_normal(shape, np.float32)
        yield fd.checkpoint.Tensor(
            name, "f32", shape, 1 + data / 10 if len(shape) == 1 else data * np.float32(shape[-1] ** -0.5)
        )


def seconds(write: Callable[[int], int], beams: int) -> float:
    began = time.perf_counter()
    count = write(beams)
    taken = time.perf_counter() - began
    assert count == NEW, f"{count} tokens were written"
    return taken


def ours(model: fd.Model, source: list[int], beams: int) -> int:
    decoder = fd.BeamSearch(num_beams=beams) if beams > 1 else fd.Autoregressive()
    return len(model.generate(source, max_tokens=NEW, min_tokens=NEW, decoder=decoder).tokens)


def theirs(translator: Any, source: list[int], beams: int) -> int:
    words = [[f"t{token}" for token in source]]
    found = translator.translate_batch(words, beam_size=beams, max_decoding_length=NEW, min_decoding_length=NEW)
    return len(found[0].hypotheses[0])


def converted(folder: Path, made: Path, threads: int) -> Any:
    """CTranslate2's translator of a folder, whose tokens are called t0, t1, ..."""
    import ctranslate2
    from ctranslate2.converters.transformers import T5Loader
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, loader = T5ForConditionalGeneration.from_pretrained(folder).eval(), T5Loader()
    spec, words = loader.get_model_spec(model), [f"t{token}" for token in range(SMALL["vocab_size"])]
    spec.config.bos_token = spec.config.decoder_start_token = "t0"
    spec.config.eos_token, spec.config.unk_token = "t1", "t2"
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.validate()
    spec.optimize(quantization="int8")
    made.mkdir()
    spec.save(str(made))
    return ctranslate2.Translator(str(made), device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1)
