"""An objective of the logits that a head makes of hidden states, and its gradients by both, without the logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.distill.laws.divergence import Terms
from fastdistill.distill.loss import Loss
from fastdistill.kernels import RowDivergence, head_divergence


class HeadGradient(NamedTuple):
    """Gradients by what the logits are made of.

    Attributes
    ----------
    hidden : np.ndarray float32 (n, width)
        by the hidden states
    head : np.ndarray float32 (vocab, width)
        by the head
    """

    hidden: np.ndarray
    head: np.ndarray


def head_loss(
    hidden: np.ndarray,
    head: np.ndarray,
    kind: str = "forward_kl",
    parameter: float | None = None,
    *,
    teacher: np.ndarray | None = None,
    teacher_hidden: np.ndarray | None = None,
    teacher_head: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    log_probs: np.ndarray | None = None,
    tail: Any = "bucket",
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
    threads: int | None = None,
) -> Loss:
    """`divergence` of student = hidden head^T.  Neither side's logits need ever be there as a whole.

    Parameters
    ----------
    hidden : float32 (n, width)
        of the student, finite
    head : float32 (vocab, width)
        finite
    kind : str, default "forward_kl"
        of KINDS, but for "adaptive_kl" of a whole teacher; "entropy" with scale=0 and labels is cross entropy
    parameter : float, optional
        the number that some kinds take; None: its default, which KINDS gives
    teacher : float32, float64, float16, or uint16 that are bits of bfloat16 (n, vocab), optional
        its logits
    teacher_hidden, teacher_head : float32 (n, teacher width) and (vocab, teacher width), optional
        in place of them
    tokens, log_probs : int32 and float32 or float64 (n, k), optional
        in place of them, a teacher that is known at k tokens of each row: as in `topk_divergence`, of all its kinds
    tail : str, default "bucket"
        likewise
    weights, temperature, reduction, total_weight, scale, temperature_squared, labels, label_scale, teacher_is_law, threads : optional
        as in `divergence`
    gradient : bool, default True
        False: values alone, in about half the time

    Returns
    -------
    Loss
        gradient: HeadGradient; info: "divergence" and "cross_entropy" (n,), before scale and label_scale

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    rows, _ = check_array("hidden", hidden, np.float32, ("n", "width"))
    vocab, _ = check_array("head", head, np.float32, ("vocab", "width"))
    terms = Terms(
        rows, vocab, weights, temperature, reduction, total_weight, scale, temperature_squared, labels, label_scale
    )
    found = head_divergence(
        hidden, head, kind, parameter, teacher=teacher, teacher_hidden=teacher_hidden, teacher_head=teacher_head,
        tokens=tokens, log_probs=log_probs, tail=tail, teacher_is_law=teacher_is_law, gradient=gradient, threads=threads, **terms.options,
    )  # fmt: skip
    made = None if found.hidden is None or found.head is None else HeadGradient(found.hidden, found.head)
    return terms.loss(RowDivergence(found.values, found.label_values, None))._replace(gradient=made)
