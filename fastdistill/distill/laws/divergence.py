"""Divergences between what a student and a teacher say of the next token: a value and its gradient by the student's logits.

All of them are `divergence` with another kind; `kernels.row_divergence` computes them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill.arguments import check_array, check_flag, check_number
from fastdistill.distill.loss import Loss, Reduction, as_labels
from fastdistill.distill.vocabularies.vocabulary import check_same_vocabulary
from fastdistill.errors import ArgumentError
from fastdistill.kernels import RowDivergence, row_divergence, row_divergence_topk
from fastdistill.kernels.distill.divergence_call import LOGITS
from fastdistill.kernels.distill.kinds import KINDS


def divergence(
    student: np.ndarray,
    teacher: np.ndarray | None,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    weights: Any = None,
    temperature: float = 1.0,
    reduction: str = "mean",
    total_weight: float | None = None,
    scale: float = 1.0,
    temperature_squared: bool = False,
    labels: Any = None,
    label_scale: float | None = None,
    teacher_is_law: bool = False,
    gradient: bool = True,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> Loss:
    """scale D(p, q) + label_scale CE of each row, p = softmax(teacher / temperature), q = softmax(student / temperature).

    Parameters
    ----------
    student : float32, float64, float16, or uint16 that are bits of bfloat16 (n, vocab)
        logits; -inf is a ban
    teacher : the same dtypes (n, vocab), or None for "entropy"
        logits, or log probabilities, which are logits too
    kind : str, default "forward_kl"
        of KINDS, which gives formulas
    parameter : float, optional
        the number that some kinds take; None: its default, which KINDS gives
    weights : float64 (n,), optional
        of rows, at least 0; a row of weight 0 is not read and does not count; None: ones
    temperature : float, default 1.0
        that logits are divided by, those of the cross entropy aside
    reduction : str, default "mean"
        "mean", over the total weight, or "sum"
    total_weight : float, optional
        of the whole batch, where these rows are a part of it; None: the sum of weights
    scale : float, default 1.0
        what the divergence is multiplied by
    temperature_squared : bool, default False
        multiply it by temperature^2 too, which is done here and nowhere else (Hinton et al. 2015)
    labels : int32 (n,), optional
        the next token of each row; a row labelled -100 has weight 0
    label_scale : float, optional
        what -log q(label) at temperature 1 is multiplied by; None: 1 where there are labels
    teacher_is_law : bool, default False
        the teacher is probabilities
    gradient : bool, default True
        False: values alone, in about two thirds of the time
    out : np.ndarray (n, vocab), optional
        the gradient, in its dtype, filled: the student itself, if its dtype is that, or memory of its own
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    Loss
        gradient (n, vocab) by the student's logits, float64 where they are, else float32;
        info: "divergence" and "cross_entropy" (n,), before scale and label_scale

    Raises
    ------
    ArgumentError
    NotFiniteError
        for a row that counts and holds NaN or +inf, or nothing but -inf; where the divergence is infinite, or the gradient beyond its dtype

    Examples
    --------
    >>> teacher = np.log(np.array([[7, 2, 1]], np.float32))
    >>> student = np.zeros((1, 3), np.float32)
    >>> loss = fd.distill.divergence(student, teacher, "jsd", 0.5)
    >>> round(loss.value, 4), loss.gradient.round(3)
    (0.0748, array([[-0.085,  0.025,  0.06 ]], dtype=float32))
    >>> fd.distill.jsd(student, teacher, beta=0.5).value == loss.value
    True
    """
    rows, vocab = check_array("student", student, LOGITS, ("n", "vocab"))
    if isinstance(teacher, np.ndarray) and teacher.ndim == 2:
        check_same_vocabulary(student, teacher)
    terms = Terms(
        rows, vocab, weights, temperature, reduction, total_weight, scale, temperature_squared, labels, label_scale
    )
    return terms.loss(
        row_divergence(
            student,
            teacher,
            kind,
            parameter,
            teacher_is_law=teacher_is_law,
            gradient=gradient,
            out=out,
            threads=threads,
            **terms.options,
        )
    )


class Terms:
    """The two terms of a row, divergence and cross entropy of its label: what multiplies them, and what they are as one value."""

    def __init__(
        self, rows: int, vocab: int, weights: Any, temperature: Any, reduction: Any, total_weight: Any, scale: Any,
        temperature_squared: Any, labels: Any, label_scale: Any,
    ) -> None:  # fmt: skip
        if labels is None and label_scale is not None:
            raise ArgumentError("label_scale is for labels, got none")
        found = None if labels is None else as_labels(labels, rows, vocab)
        self._reduction = Reduction(rows, weights, reduction, total_weight, found)
        temperature = check_number("temperature", temperature, 1e-6, 1e6)
        scale = check_number("scale", scale, -1e30, 1e30)
        default = 0.0 if labels is None else 1.0
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "scale": scale * temperature**2 if check_flag("temperature_squared", temperature_squared) else scale,
            "labels": None if found is None else np.maximum(found, -1),
            "label_scale": default if label_scale is None else check_number("label_scale", label_scale, -1e30, 1e30),
            "weights": self._reduction.scale,
        }

    def loss(self, found: RowDivergence) -> Loss:
        rows = self.options["scale"] * found.values + self.options["label_scale"] * found.label_values
        return self._reduction.loss(rows, found.gradient, divergence=found.values, cross_entropy=found.label_values)


def _named(kind: str) -> Callable[..., Loss]:
    """`divergence` of one kind, whose number has its own name; `help` says all of it."""
    wanted = KINDS[kind].parameter
    of_divergence = inspect.signature(divergence)
    parameters = [each for name, each in of_divergence.parameters.items() if name not in ("kind", "parameter")]
    if kind == "entropy":
        parameters = [each for each in parameters if not each.name.startswith("teacher")]
    if wanted:
        place = parameters[0].POSITIONAL_OR_KEYWORD
        parameters.insert(2, inspect.Parameter(wanted.name, place, default=wanted.default, annotation="float"))
    signature = of_divergence.replace(parameters=parameters)

    def objective(*arguments: Any, **options: Any) -> Loss:
        given = signature.bind(*arguments, **options).arguments
        number = given.pop(wanted.name, None) if wanted else None
        return divergence(given.pop("student"), given.pop("teacher", None), kind, number, **given)

    objective.__name__ = objective.__qualname__ = kind
    objective.__doc__ = _help(kind)
    objective.__signature__ = signature  # type: ignore[attr-defined]
    return objective


def _help(kind: str) -> str:
    """What `divergence` says, with one kind's formula, notes and number."""
    formula, wanted, notes = KINDS[kind][1:]
    _, _, sections = inspect.cleandoc(divergence.__doc__ or "").partition("Examples\n")[0].rstrip().partition("\n\n")
    number = f"{wanted.name} : float, default {wanted.default}\n    from 0 to {wanted.most:g}\n" if wanted else ""
    sections = re.sub(r"kind : .*\n.*\nparameter : .*\n.*\n", number, sections)
    if kind == "entropy":
        sections = re.sub(r"teacher\w* : .*\n.*\n", "", sections)
    return f"{formula}.  {notes}".strip() + f"\n\n{sections}"


forward_kl = _named("forward_kl")
reverse_kl = _named("reverse_kl")
jeffreys = _named("jeffreys")
mixed_kl = _named("mixed_kl")
adaptive_kl = _named("adaptive_kl")
jsd = _named("jsd")
skew_kl = _named("skew_kl")
skew_reverse_kl = _named("skew_reverse_kl")
alpha = _named("alpha")
renyi = _named("renyi")
total_variation = _named("total_variation")
log_acceptance = _named("log_acceptance")
acceptance_hybrid = _named("acceptance_hybrid")
soft_cross_entropy = _named("soft_cross_entropy")
entropy = _named("entropy")
logit_mse = _named("logit_mse")
probability_mse = _named("probability_mse")


def topk_divergence(
    student: np.ndarray,
    tokens: np.ndarray,
    log_probs: np.ndarray,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    tail: Any = "bucket",
    weights: Any = None,
    temperature: float = 1.0,
    reduction: str = "mean",
    total_weight: float | None = None,
    scale: float = 1.0,
    temperature_squared: bool = False,
    labels: Any = None,
    label_scale: float | None = None,
    gradient: bool = True,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> Loss:
    """`divergence` where the teacher is known at k tokens of each row: its own best ones, or the student's.

    Parameters
    ----------
    student : float32, float64, float16, or uint16 that are bits of bfloat16 (n, vocab)
        logits; -inf is a ban
    tokens : int32 (n, k)
        of each row, each once, in any order; -1 for none
    log_probs : float32 or float64 (n, k)
        the teacher's log p of them
    kind : str, default "forward_kl"
        of KINDS, but for "entropy", "logit_mse" and "probability_mse"
    parameter : float, optional
        the number that some kinds take; None: its default, which KINDS gives
    tail : str, default "bucket"
        "bucket": all other tokens are one outcome, of what is left of 1; the log_probs are of the law at this temperature.
        Or its probability, float64 (n,).  "drop": both laws are normalised over the tokens, and what the student
        leaks to others costs nothing
    weights, temperature, reduction, total_weight, scale, temperature_squared, labels, label_scale, gradient, out, threads : optional
        as in `divergence`

    Returns
    -------
    Loss
        gradient (n, vocab), as that of `divergence`; info: "divergence" and "cross_entropy" (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    rows, vocab = check_array("student", student, LOGITS, ("n", "vocab"))
    terms = Terms(
        rows, vocab, weights, temperature, reduction, total_weight, scale, temperature_squared, labels, label_scale
    )
    return terms.loss(
        row_divergence_topk(
            student,
            tokens,
            log_probs,
            kind,
            parameter,
            tail=tail,
            gradient=gradient,
            out=out,
            threads=threads,
            **terms.options,
        )
    )


def cross_entropy(
    student: np.ndarray,
    labels: Any,
    *,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> Loss:
    """-log q(label) of each row: `divergence` with labels and no teacher.

    Parameters
    ----------
    student : float32, float64, float16, or uint16 that are bits of bfloat16 (n, vocab)
        logits; -inf is a ban
    labels : int32 (n,)
        the next token of each row; a row labelled -100 has weight 0
    weights, reduction, total_weight, gradient, out, threads : optional
        those of `divergence`

    Returns
    -------
    Loss

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    return divergence(
        student, None, "entropy", scale=0.0, labels=labels, weights=weights, reduction=reduction, total_weight=total_weight,
        gradient=gradient, out=out, threads=threads,
    )  # fmt: skip


def acceptance(
    student: np.ndarray, teacher: np.ndarray, *, temperature: float = 1.0, threads: int | None = None
) -> np.ndarray:
    """How often a draft drawn from each row of the student is accepted by rejection sampling: sum min(p, q).

    Parameters
    ----------
    student, teacher : float32, float64, float16, or uint16 that are bits of bfloat16 (n, vocab)
        logits; -inf is a ban
    temperature : float, default 1.0
        that both are divided by
    threads : int, optional
        at most so many; None: as many as this process may use

    Returns
    -------
    np.ndarray float64 (n,)

    Raises
    ------
    ArgumentError
    NotFiniteError

    References
    ----------
    Leviathan et al. 2023.
    """
    found = divergence(student, teacher, "total_variation", temperature=temperature, gradient=False, threads=threads)
    return 1 - found.rows
