"""AdaSPEC: a draft learns the tokens where it is furthest behind a reference of its own size, and leaves out what that found hard too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.arguments import check_choice, check_number
from fastdistill.distill.laws.divergence import divergence
from fastdistill.distill.loss import Loss
from fastdistill.distill.selectors.selectors import reference_gap
from fastdistill.kernels.distill.kinds import KINDS, resolve
from fastdistill.train.batch import Batch
from fastdistill.train.objectives import LogitsOf


@dataclass(frozen=True)
class SelectiveDistillation:
    """D(p, q) of the rows with the greatest D(p, q) - D(p, r): p is the teacher's law, q the student's, r the reference's.

    The sum is over the rows that are selected, the mean over all that count: a fraction of 1 is the plain divergence, bit for
    bit.  Nothing of the selection has a gradient (Hu et al. 2025, AdaSPEC, arXiv 2510.19779, section 3).

    Parameters
    ----------
    kind : str
        of D: see `fastdistill.distill.divergence`
    teacher, reference : Teacher
        run beside the student
    fraction : float, default 0.4
        0..1, of the rows that count among those the head sees at a time, at most `engine.HEAD_ROWS`

    Raises
    ------
    ArgumentError
    """

    kind: str
    teacher: LogitsOf
    reference: LogitsOf
    fraction: float = 0.4

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        resolve(self.kind, None)
        check_number("fraction", self.fraction, 0, 1)

    def __call__(self, logits: np.ndarray, batch: Batch, rows: np.ndarray, total_weight: float) -> Loss:
        weights = batch.weights[rows].astype(np.float64)
        theirs = self.teacher.logits(batch, rows)
        own, its = (
            divergence(each, theirs, self.kind, weights=weights, gradient=False).rows
            for each in (logits, self.reference.logits(batch, rows))
        )
        selected = reference_gap(own, its, self.fraction, weights=weights)
        return divergence(logits, theirs, self.kind, weights=selected, total_weight=total_weight, out=logits)
