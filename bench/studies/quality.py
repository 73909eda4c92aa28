"""What quantisation costs: the mean KL divergence from the dequantised weights in float32, beside llama.cpp's.

Both engines hold the same quantised weights and quantise activations their own way; transformers computes the truth in
float32 from the same weights.  So the divergence is that of the engine alone.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np

import fastdistill as fd
from bench.lib.models import add_model_arguments, no_llama_cpp, passage
from bench.lib.peers import LlamaCpp, missing, transformers_logits, transformers_model
from bench.lib.report import Report

TOKENS = 512
MOST_RELATIVE, MOST_ABSOLUTE = 1.05, 1e-5  # ours may be this many times llama.cpp's, and this much more


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 (rows, vocab)."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def divergence(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL(truth || found) in nats of each row of logits, (rows,)."""
    p, q = log_softmax(truth), log_softmax(found)
    return (np.exp(p) * (p - q)).sum(axis=1)


def divergences(
    folder: Path, gguf: Path | None, threads: int, formats: tuple[str | None, ...] = (None,)
) -> dict[str, np.ndarray]:
    """KL of each of the passage's first 512 positions from transformers in float32, by engine.

    formats  of fastdistill: None is "fastdistill", as stored
    """
    tokenizer = fd.load(folder, threads=threads).tokenizer
    ids = tokenizer.encode(passage())[:TOKENS]
    assert len(ids) == TOKENS, f"the passage has only {len(ids)} tokens"
    truth = transformers_logits(transformers_model(folder), ids)
    found = {}
    for format in formats:
        name = "fastdistill" if format is None else f"fastdistill, {format}"
        found[name] = divergence(truth, fd.load(folder, format=format, threads=threads).logits(ids))
    if gguf is not None:
        found["llama.cpp"] = divergence(truth, LlamaCpp(gguf, TOKENS, threads).logits(ids))
    return found


def within_bound(ours: np.ndarray, llama_cpp: np.ndarray) -> bool:
    """Whether quantisation costs no more than it costs llama.cpp."""
    return bool(ours.mean() <= MOST_RELATIVE * llama_cpp.mean() + MOST_ABSOLUTE)


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    if reason := missing("torch", "transformers"):
        report.skip("everything", reason)
        return report
    if reason := no_llama_cpp(options.gguf):
        report.skip("llama.cpp", reason)
    gguf = None if reason else options.gguf
    found = divergences(options.model, gguf, max(options.threads), (None, "f32"))
    for engine, values in found.items():
        error = float(values.std() / len(values) ** 0.5)
        cells = {
            "mean KL, nats": f"{values.mean():.3e}",
            "its standard error": f"{error:.1e}",
            "largest": f"{values.max():.3e}",
        }
        if "llama.cpp" in found:
            cells["/ llama.cpp"] = f"{values.mean() / found['llama.cpp'].mean():.3f}"
        report.row(engine=engine, tokens=len(values), **cells)
    if gguf is not None:
        verdict = "yes" if within_bound(found["fastdistill"], found["llama.cpp"]) else "NO"
        report.note(f"fastdistill <= {MOST_RELATIVE} x llama.cpp + {MOST_ABSOLUTE:g}: {verdict}")
    return report
