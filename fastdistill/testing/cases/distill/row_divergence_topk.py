"""The same from a teacher that is known at a few tokens of each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.row_divergence import log_softmax
from fastdistill.reference.distill.row_divergence_topk import row_divergence_topk as reference_row_divergence_topk
from fastdistill.testing.cases.distill.row_divergence import any_parameter, error, number_of
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

WIDTHS = [2, 17, 1024, 1040, 5000]
LISTED_KINDS = [kind for kind in KINDS if kind not in ("entropy", "logit_mse", "probability_mse")]


def cases(
    draw: Choices,
    widths: Sequence[int] = WIDTHS,
    dtypes: Sequence[Any] = (np.float32, np.float64),
    tails: Sequence[str] = ("bucket", "drop", "given"),
) -> Case:
    """A student, k tokens of a whole teacher, and options; some rows list fewer."""
    kind = draw.choice(LISTED_KINDS)
    parameter, random = any_parameter(draw, kind), draw.generator()
    rows, vocab, dtype = draw.integer(0, 3), draw.choice(widths), draw.choice(dtypes)
    k = draw.choice([1, 2, min(vocab - 1, 20)])
    student, teacher = random.standard_normal((2, rows, vocab)) * draw.choice([0.5, 3.0])
    tokens = np.array([random.permutation(vocab)[:k] for _ in range(rows)], np.int32).reshape(rows, k)
    log_probs = np.take_along_axis(log_softmax(teacher), tokens, axis=1).astype(dtype)
    tokens[:, 1:][random.random((rows, k - 1)) < draw.choice([0, 0.3])] = -1
    tail: Any = draw.choice(tails)
    if tail == "given":  # nothing can be left where every token is listed
        tail = random.random(rows) * ((tokens >= 0).sum(axis=1) < vocab)
    labels = np.where(random.random(rows) < 0.3, -1, random.integers(0, vocab, rows)).astype(np.int32)
    return {
        "student": student.astype(dtype), "tokens": tokens, "log_probs": log_probs, "kind": kind, "parameter": parameter,
        "tail": tail, "temperature": draw.choice([0.5, 1.0, 2.0]),
        "labels": draw.choice([None, labels]), "scale": 0.7, "label_scale": 0.6,
        "weights": random.choice([0, 0.5, 1, 2], rows).astype(np.float64),
    }  # fmt: skip


def spread_out(shape: tuple[int, ...], tokens: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """A whole teacher (rows, vocab) with what is listed, and far below it all else: its logarithms lie further apart."""
    teacher = np.full(shape, -30.0)
    for row in range(len(teacher)):
        listed = tokens[row] >= 0
        teacher[row, tokens[row][listed]] = log_probs[row][listed]
    return teacher


def check(case: Case, function: Callable[..., Any] = kernels.row_divergence_topk) -> Any:
    """As far as those of the whole law, whose logarithms lie further apart."""
    student, kind, temperature = case["student"], case["kind"], case["temperature"]
    number = number_of(kind, case["parameter"])
    got, want = function(**case), reference_row_divergence_topk(**{**case, "parameter": number})
    values, label_values, gradient = got
    teacher = spread_out(student.shape, case["tokens"], case["log_probs"])
    tolerance = 8 * error(kind, number, student, teacher, temperature) if len(student) else 0.0
    near("values", values, want[0], tolerance * (1 + np.abs(want[0])))
    near("label_values", label_values, want[1], 2 * tolerance)
    near("gradient", gradient, want[2], 2 / temperature * 8 * tolerance)
    return got
