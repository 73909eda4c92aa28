"""The same of the logits that a head makes of hidden states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.head_divergence import head_divergence as reference_head_divergence
from fastdistill.reference.distill.row_divergence import log_softmax
from fastdistill.testing.cases.distill.row_divergence import any_parameter, error, number_of, unsure
from fastdistill.testing.cases.distill.row_divergence_topk import spread_out
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

# Tiles of 6 and 8 rows, groups of 24, panels of 16, blocks of 144 tokens, sums of 256 terms: one under, at and over.
ROWS, VOCABS, DEPTHS = [0, 1, 7, 24, 25], [1, 15, 16, 143, 144, 145, 300], [1, 16, 17, 33]
HEAD_KINDS = [kind for kind in KINDS if kind != "adaptive_kl"]


def cases(
    draw: Choices,
    rows: Sequence[int] = ROWS,
    vocabs: Sequence[int] = VOCABS,
    widths: Sequence[int] = DEPTHS,
    kinds: Sequence[str] = HEAD_KINDS,
) -> Case:
    """Hidden states and a head, a teacher as logits or as another pair of them, a kind with its number, and options."""
    kind = draw.choice(kinds)
    parameter, random = any_parameter(draw, kind), draw.generator()
    n, vocab, width = draw.choice(rows), draw.choice(vocabs), draw.choice(widths)

    def matrix(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    teacher: Case = {"teacher": matrix(n, vocab, scale=2)}
    known = draw.choice(["whole", "hidden", "listed"])
    if known == "hidden":
        teacher = {"teacher_hidden": matrix(n, 5), "teacher_head": matrix(vocab, 5)}
    elif known == "listed" and kind not in ("logit_mse", "probability_mse") and vocab > 1:
        k = min(vocab - 1, 6)
        tokens = np.array([random.permutation(vocab)[:k] for _ in range(n)], np.int32).reshape(n, k)
        listed = np.take_along_axis(log_softmax(teacher["teacher"].astype(np.float64)), tokens, axis=1)
        tokens[:, 1:][random.random((n, k - 1)) < 0.2] = -1
        tail = draw.choice(["bucket", "drop", random.random(n)])
        teacher = {"tokens": tokens, "log_probs": listed.astype(np.float32), "tail": tail}
    labels = np.where(random.random(n) < 0.3, -1, random.integers(0, vocab, n)).astype(np.int32)
    return {
        "hidden": matrix(n, width), "head": matrix(vocab, width, scale=2 / np.sqrt(width)), "kind": kind, "parameter": parameter,
        **({} if kind == "entropy" else teacher), "temperature": draw.choice([0.5, 1.0, 2.0]), "scale": 0.7, "label_scale": 0.6,
        "labels": draw.choice([None, labels]), "weights": random.choice([0, 0.5, 1, 2], n).astype(np.float64),
    }  # fmt: skip


def _tolerance(case: Case) -> tuple[float, Any]:
    """What values may be off by, and gradients beyond that: as row_divergence, of logits that are off by their own sums' roundings."""
    hidden, head, kind, temperature = (case[name] for name in ("hidden", "head", "kind", "temperature"))
    logits = hidden.astype(np.float64) @ head.T.astype(np.float64)
    if not logits.size:
        return 0.0, 0.0
    teacher = case.get("teacher")
    if "tokens" in case:
        teacher = spread_out(logits.shape, case["tokens"], case["log_probs"])
    elif "teacher_hidden" in case:
        teacher = case["teacher_hidden"].astype(np.float64) @ case["teacher_head"].T
    largest = 0.0 if teacher is None else np.abs(teacher).max()
    # A sum of so many products of so large numbers, each rounded.
    sums = 2.0**-24 * hidden.shape[1] * np.abs(hidden).max() * np.abs(head).max() * hidden.shape[1] / temperature
    found = 8 * error(kind, number_of(kind, case["parameter"]), logits.astype(np.float32), teacher, temperature)
    amplified = {"alpha": 4, "renyi": 8}.get(kind, 1) * (1 + np.abs(logits).max() + largest)
    accepted = 1.0
    if kind in ("log_acceptance", "renyi"):
        far = kernels.row_divergence(logits, teacher, "log_acceptance", temperature=temperature).values
        accepted = np.exp(-far.max(initial=0))
    slack = unsure(kind, logits.astype(np.float32), teacher, temperature) / accepted
    return found + 4 * sums * amplified / accepted, slack


def check(case: Case, function: Callable[..., Any] = kernels.head_divergence) -> Any:
    """Values, and gradients by logits that are off by so much, times the other factor, summed with roundings."""
    hidden, head = case["hidden"], case["head"]
    number = number_of(case["kind"], case["parameter"])
    got, want = function(**case), reference_head_divergence(**{**case, "parameter": number})
    values, label_values, by_hidden, by_head = got
    tolerance, slack = _tolerance(case)
    near("values", values, want[0], tolerance)
    near("label_values", label_values, want[1], 2 * tolerance)
    by = 8 / case["temperature"] * (tolerance + np.max(slack, initial=0))
    for name, found, meant, factor in (("hidden", by_hidden, want[2], head), ("head", by_head, want[3], hidden)):
        bound = by * np.abs(factor).max(initial=0) * max(len(factor), 1)
        near(f"gradient by {name}", found, meant, 2.0**-16 * np.abs(meant) + bound + 1e-7)
    return got
