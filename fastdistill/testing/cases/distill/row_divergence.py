"""How far a student's law is from a teacher's, by every measure, and the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.row_divergence import divergence, log_softmax, target
from fastdistill.reference.distill.row_divergence import row_divergence as reference_row_divergence
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

WIDTHS = [1, 2, 15, 16, 17, 1023, 1024, 1025, 2049, 17 * 1024 + 3]  # lanes, chunks, and more chunks than lanes
PARAMETERS = {"mixed_kl": [0.3], "adaptive_kl": [0.5, 0.9], "jsd": [0.1, 0.9], "skew_kl": [0.1, 0.7], "skew_reverse_kl": [0.1, 0.7],
              "alpha": [0.3, 0.5], "renyi": [0.3, 0.5], "acceptance_hybrid": [3.0, 0.5]}  # fmt: skip
KINKED = "total_variation", "log_acceptance", "acceptance_hybrid"


def any_parameter(draw: Choices, kind: str) -> float | None:
    """A number of the kind's; None for a kind without one."""
    return draw.choice(PARAMETERS.get(kind, [None]))


def number_of(kind: str, parameter: float | None) -> float | None:
    """What the reference is given: a kind's own number where none is said."""
    found = KINDS[kind].parameter
    return found.default if parameter is None and found else parameter


def cases(
    draw: Choices,
    widths: Sequence[int] = WIDTHS,
    dtypes: Sequence[Any] = (np.float32, np.float64),
    kinds: Sequence[str] = tuple(KINDS),
    shifts: Sequence[float] = (0, 1e3),
) -> Case:
    """Two sides, a kind with its number, and options; tokens that are banned are so on both sides, or where the kind can bear it."""
    kind = draw.choice(kinds)
    parameter, random = any_parameter(draw, kind), draw.generator()
    rows, vocab, dtype = draw.integer(0, 3), draw.choice(widths), draw.choice(dtypes)
    student, teacher = random.standard_normal((2, rows, vocab)) * draw.choice([0.5, 4.0])
    banned = random.random(vocab) < draw.choice([0, 0.4])
    kept = random.integers(vocab)
    banned[kept] = False
    student[:, banned] = teacher[:, banned] = -np.inf
    if kind in ("jsd", "total_variation", "probability_mse"):  # bounded: each side may ban for itself
        teacher[(random.random((rows, vocab)) < 0.2) & (np.arange(vocab) != kept)] = -np.inf
    shift = 0 if kind == "logit_mse" else draw.choice(shifts)
    labels = random.integers(0, vocab, rows, np.int32)
    labels = np.where(banned[labels] | (random.random(rows) < 0.3), -1, labels).astype(np.int32)
    return {
        "student": (student + shift).astype(dtype), "teacher": None if kind == "entropy" else (teacher - shift / 2).astype(dtype),
        "kind": kind, "parameter": parameter, "temperature": draw.choice([0.5, 1.0, 2.0]), "labels": draw.choice([None, labels]),
        "scale": 0.7, "label_scale": 0.6, "weights": random.choice([0, 0.5, 1, 2], rows).astype(np.float64),
    }  # fmt: skip


def error(
    kind: str, parameter: float | None, student: np.ndarray, teacher: np.ndarray | None, temperature: float
) -> float:
    """What a value may be off by: see docs/kernels/distill/row_divergence.md."""
    unit = 2.0 ** (-24 if student.dtype == np.float32 else -53)
    q = log_softmax(student.astype(np.float64) / temperature)
    of_teacher = None if teacher is None else target(teacher, temperature, False)
    p = q if of_teacher is None else of_teacher[1]
    finite = np.abs(np.concatenate([q[np.isfinite(q)], p[np.isfinite(p)], [1.0]]))
    most = finite.max()
    logits = np.abs(student[np.isfinite(student)]).max(initial=1) / temperature
    found = unit * ((2 * most + 76) * most + 6 * most + 6)
    if kind == "logit_mse":
        found += unit * 8 * (1 + 2 * (logits + most)) ** 2
    if kind in ("alpha", "renyi"):
        assert parameter is not None
        found /= parameter * (1 - parameter)
    if kind == "renyi":
        assert parameter is not None
        found /= np.exp((parameter - 1) * divergence("renyi", parameter, q, q, of_teacher)[0]).min(initial=1)
    if kind == "log_acceptance":
        found /= np.minimum(np.exp(p), np.exp(q)).sum(axis=1).min(initial=1)
    return found


def unsure(kind: str, student: np.ndarray, teacher: np.ndarray | None, temperature: float) -> Any:
    """Where a kink may be on the other side in the student's precision, times the jump there."""
    if kind not in KINKED:
        return 0.0
    q, p = np.exp(log_softmax(student.astype(np.float64) / temperature)), np.exp(target(teacher, temperature, False)[1])
    return np.where(np.abs(p - q) <= 1e-4 * np.maximum(p, q), q, 0) * 4


def check(case: Case, function: Callable[..., Any] = kernels.row_divergence) -> Any:
    """Values, values of labels, and the gradient, whose kinks roundings may pass.

    -log q at temperature 1, of logits up to 8 apart of each other a unit of roundings, and the log of a sum.
    """
    student, teacher, kind, temperature = (case[name] for name in ("student", "teacher", "kind", "temperature"))
    number = number_of(kind, case["parameter"])
    got, want = function(**case), reference_row_divergence(**{**case, "parameter": number})
    values, label_values, gradient = got
    tolerance = error(kind, number, student, teacher, temperature)
    near("values", values, want[0], tolerance)
    near("label_values", label_values, want[1], 2 * tolerance)
    slack = 2 / temperature * unsure(kind, student, teacher, temperature)
    near("gradient", gradient, want[2], 2 / temperature * 4 * tolerance + slack + 1e-300, student.dtype)
    return got
