"""What a run minimises, by name: the cross entropy of labels, or a divergence from a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fastdistill.arguments import check_choice, check_flag, check_number
from fastdistill.distill.laws.divergence import cross_entropy, divergence, topk_divergence
from fastdistill.distill.loss import Loss
from fastdistill.errors import ArgumentError
from fastdistill.kernels.distill.kinds import KINDS, resolve
from fastdistill.messages import short, suggestion
from fastdistill.train.batch import Batch, Objective

CROSS_ENTROPY = "cross_entropy"
OBJECTIVES = (CROSS_ENTROPY, *KINDS)
TAILS = "bucket", "drop"


class LogitsOf(Protocol):
    """A teacher that runs beside the student: see `train.data.Teacher`."""

    def logits(self, batch: Batch, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class CrossEntropy:
    """-log q(label) of each row."""

    def __call__(self, logits: np.ndarray, batch: Batch, rows: np.ndarray, total_weight: float) -> Loss:
        labels, weights = batch.labels[rows], batch.weights[rows]
        return cross_entropy(logits, labels, weights=weights, total_weight=total_weight, out=logits)


@dataclass(frozen=True)
class Distillation:
    """scale D(p, q) - label_scale log q(label) of each row: p is a teacher's law, q the student's.

    Parameters
    ----------
    kind : str
        of D: see `fastdistill.distill.divergence`, as for what is not said here
    parameter : float, optional
        the number that some kinds take; None: its default
    teacher : Teacher, optional
        runs beside the student; None: batches have rows of a teacher file
    temperature : float, default 1.0
        that the logits of both are divided by, those of a label's cross entropy aside
    temperature_squared : bool, default False
        multiply D by temperature^2 (Hinton et al. 2015)
    scale : float, default 1.0
        of D
    label_scale : float, default 0.0
        of the cross entropy of labels; 0: they say which rows count, and no more
    tail : str, optional
        of a teacher file's rows: "bucket", all other tokens are one outcome; "drop", both laws are normalised over the
        tokens that a row has; None: "bucket" at temperature 1, "drop" at others, as the file does not say their tail

    Raises
    ------
    ArgumentError
    """

    kind: str
    parameter: float | None = None
    teacher: LogitsOf | None = None
    temperature: float = 1.0
    temperature_squared: bool = False
    scale: float = 1.0
    label_scale: float = 0.0
    tail: str | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        resolve(self.kind, self.parameter)
        check_number("temperature", self.temperature, 1e-6, 1e6)
        check_flag("temperature_squared", self.temperature_squared)
        check_number("scale", self.scale, -1e30, 1e30)
        check_number("label_scale", self.label_scale, -1e30, 1e30)
        if self.tail is not None:
            check_choice("tail", self.tail, TAILS)
        if self.tail == "bucket" and self.temperature != 1:
            raise ArgumentError(
                f'tail must be "drop" at temperature {self.temperature:g}: the file has that of temperature 1'
            )

    def __call__(self, logits: np.ndarray, batch: Batch, rows: np.ndarray, total_weight: float) -> Loss:
        weights = batch.weights[rows]
        options = {
            "weights": weights,
            "temperature": self.temperature,
            "total_weight": total_weight,
            "scale": self.scale,
            "temperature_squared": self.temperature_squared,
            "labels": batch.labels[rows] if self.label_scale else None,
            "label_scale": self.label_scale if self.label_scale else None,
            "out": logits,
        }
        if self.kind == "entropy" or self.teacher is not None:
            theirs = None if self.teacher is None else self._theirs(batch, rows, weights > 0)
            return divergence(logits, theirs, self.kind, self.parameter, **options)
        if batch.teacher is None:
            raise ArgumentError(f"{self.kind} needs a teacher: objective(teacher=...), or batches of a teacher file")
        ids, log_probs, mass = (array[rows] for array in batch.teacher)
        tail = self.tail or ("bucket" if self.temperature == 1 else "drop")
        return topk_divergence(
            logits, ids, log_probs, self.kind, self.parameter, tail=mass if tail == "bucket" else tail, **options
        )

    def _theirs(self, batch: Batch, rows: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """The teacher's logits of these rows; those that do not count are not asked for, nor read."""
        assert self.teacher is not None
        theirs = self.teacher.logits(batch, rows[counted])
        if counted.all():
            return theirs
        whole = np.zeros((len(rows), theirs.shape[1]), np.float32)
        whole[counted] = theirs
        return whole


def objective(name: str, *, teacher: LogitsOf | None = None, **settings: object) -> Objective:
    """An objective of a run, by name.

    Parameters
    ----------
    name : str
        "cross_entropy", or a divergence of `fastdistill.distill` from a teacher: "forward_kl", "reverse_kl", "jsd", ...
    teacher : Teacher, optional
        that runs beside the student; None: batches have rows of a teacher file
    **settings : float, bool or str
        of a divergence, those of `Distillation`, and the number that some take by its name: beta of "jsd", skew of
        "skew_kl", alpha of "renyi"

    Raises
    ------
    ArgumentError
    """
    check_choice("name", name, OBJECTIVES)
    number = None if name == CROSS_ENTROPY else KINDS[name].parameter
    known = [] if name == CROSS_ENTROPY else ["temperature", "temperature_squared", "scale", "label_scale", "tail"]
    taken = [*known, number.name] if number else known
    for setting in settings:
        if setting not in taken:
            raise ArgumentError(
                f"{name} takes {', '.join(taken) or 'no settings'}, got {short(setting)}{suggestion(setting, taken)}"
            )
    if name == CROSS_ENTROPY:
        if teacher is not None:
            raise ArgumentError("cross_entropy takes no teacher: a divergence with label_scale has both")
        return CrossEntropy()
    if name == "entropy" and teacher is not None:
        raise ArgumentError("entropy is of the student alone: it takes no teacher")
    parameter = settings.pop(number.name, None) if number else None
    return Distillation(name, parameter, teacher, **settings)  # type: ignore[arg-type]
