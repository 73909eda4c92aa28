"""The file of a teacher's answers beside DistillKit's format: bytes a token, and the KL divergence that storing costs.

DistillKit sorts a row's k likeliest tokens by probability, packs their ids into as many bits as the vocabulary needs, stores
the first log-probabilities in bfloat16 and fits a curve in float32 to the others (distillkit/compression; the settings are those
its README names).  It is done here in NumPy, by least squares in float64, so without the rounding of its float32.  Three divergences from
the teacher: `kept`, with all other tokens taken as one, so the cost of rounding alone; `uniform`, of whole rows, the mass that is left
spread evenly over them; `dropped`, over the kept tokens alone, both renormalised.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastdistill as fd
from bench.lib import prompts
from bench.lib.models import add_model_argument, passage
from bench.lib.report import Report
from fastdistill.distill import TeacherFile, TeacherWriter, TopK, teacher_top_k

LONGEST = 768  # tokens of a text
ROWS = 256  # of logits at a time: 100 MB in float64
# By name: k, how many are stored exactly, the terms of the curve. The first is called a budget pick, the second recommended.
DISTILLKIT: dict[str, tuple[int, int, Sequence[float]]] = {
    "DistillKit, k = 50": (50, 1, (0, 1, 0.5)),
    "DistillKit, k = 128": (128, 16, (0, 1, 2, 3, 4, 0.5)),
}
OURS = {f"fastdistill, k = {k}, {bits} bits": (k, bits) for k, bits in ((50, 4), (50, 5), (50, 8), (128, 6))}


def teacher_logits(folder: Path) -> np.ndarray:
    """float32 (n, vocab): the model's rows over a passage of prose, and questions and texts to copy from, some 2000 tokens."""
    model = fd.load(folder)
    texts = [passage(), *(prompt.text for kind in prompts.KINDS for prompt in prompts.load(kind)[:4])]
    rows = [model.logits(model.tokenizer.encode(text)[:LONGEST]).copy() for text in texts]
    return np.concatenate(rows)[:2048]


def distillkit_bytes(k: int, vocab: int, exact: int = 1, terms: int = 3) -> int:
    """Of a token: k ids, `exact` bfloat16, `terms` float32."""
    return -(-k * (vocab - 1).bit_length() // 8) + 2 * exact + 4 * terms


def distillkit_log_probs(truth: TopK, vocab: int = 49152, exact: int = 1, terms: Sequence[float] = (0, 1, 0.5)) -> TopK:
    """What its decoder gives, renormalised with the mass that it takes to be missing: at least 1e-8 for each other token."""
    order = np.argsort(-truth.log_probs, axis=1, kind="stable")
    laws = np.take_along_axis(truth.log_probs, order, axis=1).astype(np.float64)
    places = np.arange(laws.shape[1] - exact, dtype=np.float64)
    curve = np.stack([places**term for term in terms], axis=1)
    coefficients = np.linalg.lstsq(curve, laws[:, exact:].T, rcond=None)[0].astype(np.float32)
    found = np.concatenate([_bfloat16(laws[:, :exact]), (curve @ coefficients).T], axis=1)
    kept = np.exp(found).sum(axis=1)
    others = vocab - laws.shape[1]
    tail = np.maximum((1 - kept) / others, 1e-8) * others
    total = kept + tail
    ids = np.take_along_axis(truth.ids, order, axis=1)
    back = np.argsort(ids, axis=1)
    return TopK(
        np.take_along_axis(ids, back, axis=1),
        np.take_along_axis(found, back, axis=1) - np.log(total)[:, None],
        tail / total,
    )


def kept_divergence(truth: TopK, found: TopK) -> np.ndarray:
    """KL(truth || found) in nats of each row, (n,), all tokens of the tail as one."""
    return _divergence(_with_tail(truth), _with_tail(found))


def dropped_divergence(truth: TopK, found: TopK) -> np.ndarray:
    """Of the kept tokens alone, both renormalised."""
    p, q = (np.exp(top.log_probs.astype(np.float64)) for top in (truth, found))
    return _divergence(p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True))


def tail_divergence(logits: np.ndarray, truth: TopK) -> np.ndarray:
    """The tail's mass times KL(its law || uniform): what `uniform` costs beside `kept`, as a law of laws has it, (n,)."""
    found = []
    for begin in range(0, len(logits), ROWS):
        rows = slice(begin, begin + ROWS)
        p = np.exp(logits[rows].astype(np.float64) - logits[rows].max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        np.put_along_axis(p, truth.ids[rows], 0, axis=1)
        mass = p.sum(axis=1, keepdims=True)
        others = logits.shape[1] - truth.ids.shape[1]
        found.append(_divergence(p, np.broadcast_to(mass / others, p.shape)))
    return np.concatenate(found)


def add_arguments(parser: ArgumentParser) -> None:
    add_model_argument(parser)


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    logits = teacher_logits(options.model)
    vocab = logits.shape[1]
    for name, (k, exact, terms) in DISTILLKIT.items():
        truth = teacher_top_k(logits, k)
        size = distillkit_bytes(k, vocab, exact, len(terms))
        _row(report, name, size, logits, truth, distillkit_log_probs(truth, vocab, exact, terms))
    speeds = []
    for name, (k, bits) in OURS.items():
        with TemporaryDirectory() as folder:
            with TeacherWriter(Path(folder) / "teacher.safetensors", vocab, k, bits=bits) as file:
                file.append(logits)
            started = time.perf_counter()
            found = TeacherFile(Path(folder) / "teacher.safetensors")[:]
            speeds.append(f"{name.partition(', ')[2]} {len(logits) / (time.perf_counter() - started) / 1000:.0f}")
        _row(report, name, file.token_bytes, logits, teacher_top_k(logits, k), found)
    report.note(f"{len(logits)} tokens. Read and decoded, thousands a second: {'; '.join(speeds)}")
    return report


def _row(report: Report, name: str, size: int, logits: np.ndarray, truth: TopK, found: TopK) -> None:
    kept, dropped = kept_divergence(truth, found), dropped_divergence(truth, found)
    cells: dict[str, object] = {"format": name, "bytes a token": size}
    for kind, values in (("kept", kept), ("dropped", dropped), ("uniform", kept + tail_divergence(logits, truth))):
        cells[f"{kind}: mean"] = float(values.mean())
        cells["99 %" + " " * len(cells)] = float(np.quantile(values, 0.99))
    report.row(**cells)


def _with_tail(top: TopK) -> np.ndarray:
    return np.concatenate([np.exp(top.log_probs.astype(np.float64)), top.tail[:, None].astype(np.float64)], axis=1)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0).sum(axis=1)


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to it, half to even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)
