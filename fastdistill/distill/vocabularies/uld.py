"""ULD: distillation across vocabularies by their sorted probabilities, whatever the tokens are."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, check_array, check_flag, check_number
from fastdistill.distill.log_softmax import blocks, log_softmax
from fastdistill.distill.loss import Loss, Reduction
from fastdistill.errors import ArgumentError


def uld_loss(
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    temperature: float = 1.0,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """The sum of |q - p| over the sorted probabilities of student and teacher, the shorter list filled up with zeros.

    It is V times `transport.wasserstein_1d` of the two lists, V the wider vocabulary: 0 to 2 a row. It sees no tokens:
    a student that exchanges two of them pays nothing, so a term with labels belongs beside it. Rows pair one to one,
    row i of the student's answer with row i of the teacher's.

    Parameters
    ----------
    student, teacher : float32 or float64 (n, student_vocab) and (n, teacher_vocab)
        logits; -inf is a ban
    temperature : float, default 1.0
        that both are divided by, above 0
    weights : float (n,), optional
        of the rows; a row of weight 0 is not read
    reduction : str, default "mean"
        "mean", over the total weight, or "sum"
    total_weight : float, optional
        of the whole batch, where these rows are a part of it
    gradient : bool, default True
        False: Loss.gradient is None

    Returns
    -------
    Loss
        gradient (n, student_vocab), in the student's dtype: that of the order found, so where probabilities tie, or
        equal the other's, that of one side or 0

    Raises
    ------
    ArgumentError
    NotFiniteError
        naming the array and the row

    References
    ----------
    Boizard et al. 2024, "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs",
    equation 5, whose loss is 1.5 times this, beside cross entropy
    """
    n, vocab = check_array("student", student, REAL, ("rows", "student_vocab"))
    _, other = check_array("teacher", teacher, REAL, (n, "teacher_vocab"))
    if 0 in (vocab, other):
        raise ArgumentError(f"student and teacher must have columns, got {vocab} and {other}")
    temperature = check_number("temperature", temperature, 1e-6, 1e6)
    check_flag("gradient", gradient)
    reduce = Reduction(n, weights, reduction, total_weight)
    cost, found = np.zeros(n), np.zeros((n, vocab), student.dtype) if gradient else None
    for rows in blocks(np.flatnonzero(reduce.weights > 0), max(vocab, other)):
        q = np.exp(log_softmax("student", student[rows], rows, temperature))
        p = np.exp(log_softmax("teacher", teacher[rows], rows, temperature))
        order = np.argsort(-q, axis=1, kind="stable")
        wide = max(vocab, other)
        gap = np.zeros((len(rows), wide))
        gap[:, :vocab] = np.take_along_axis(q, order, axis=1)
        gap[:, :other] -= np.sort(p, axis=1)[:, ::-1]
        cost[rows] = np.abs(gap).sum(axis=1)
        if found is not None:
            by_q = np.empty_like(q)
            np.put_along_axis(by_q, order, np.sign(gap[:, :vocab]), axis=1)
            by_q -= (q * by_q).sum(axis=1, keepdims=True)
            found[rows] = by_q * q * (reduce.scale[rows] / temperature)[:, None]
    return reduce.loss(cost, found)
