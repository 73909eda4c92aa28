"""Objectives of tokens that a policy has drawn, by their log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_flag, check_number
from fastdistill.distill.laws.log_prob import by_logits, check_logits, check_tokens, leads
from fastdistill.distill.loss import IGNORED, Loss, Reduction, counted
from fastdistill.errors import NotFiniteError

_KL_KINDS = "k1", "k2", "k3"
_MOST_LOG_RATIO = 20.0  # e^20 is a ratio of 5e8: what is further off is as far off as that


def sampled_reverse_kl(
    student: np.ndarray,
    teacher_log_prob: Any,
    tokens: Any,
    *,
    temperature: float = 1.0,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """KL(student, teacher) as the student's own draws estimate it: r = log q(y) - log p(y), y drawn from q.

    The gradient is r grad log q(y), with r held fixed: the score-function estimate, whose mean over draws is the gradient of the
    divergence. It is not the derivative of the value, since the draw, too, depends on the student.

    Parameters
    ----------
    student : float32 or float64 (n, vocab)
        logits; -inf is a ban
    teacher_log_prob : float (n,)
        log p(y), as `token_log_prob(teacher, tokens)`
    tokens : int (n,)
        y, drawn from softmax(student / temperature); -100 leaves a row out
    temperature : float, default 1.0
        that the student's logits are divided by, above 0
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient (n, vocab), in the student's dtype

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    rows, vocab = check_logits("student", student)
    chosen, read = check_tokens(tokens, rows, vocab)
    wanted = check_flag("gradient", gradient)
    reduce = Reduction(rows, weights, reduction, total_weight, np.where(read, 0, IGNORED))
    log_p = counted(
        "teacher_log_prob", as_array("teacher_log_prob", teacher_log_prob, np.float64, (rows,)), reduce.weights
    )
    lead, mass = leads("student", student, reduce.weights > 0, temperature)
    log_q = lead[np.arange(rows), chosen] - np.log(mass)
    if (log_q == -np.inf).any():
        raise NotFiniteError(f"student: row {int(np.argmin(log_q))} bans its token, which it cannot have drawn")
    ratios = np.where(reduce.weights > 0, log_q - log_p, 0)
    if not wanted:
        return reduce.loss(ratios)
    by_student = by_logits(lead, mass, chosen, ratios * reduce.scale / temperature)
    return reduce.loss(ratios, by_student.astype(student.dtype, copy=False))


def kl_estimate(
    log_q: Any,
    log_p: Any,
    kind: str = "k3",
    *,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """KL(q, p) from log-probabilities of tokens that were drawn from q (Schulman 2020), with d = log q - log p.

    - k1: d, without bias; its gradient is 1, which says nothing: see `sampled_reverse_kl`
    - k2: d^2 / 2
    - k3: e^-d - 1 + d, without bias and never below 0; GRPO's penalty of what leaves a reference

    Parameters
    ----------
    log_q : float (n,)
        under the student
    log_p : float (n,)
        under the teacher or reference, held fixed
    kind : str, default "k3"
        "k1", "k2" or "k3"
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient float64 (n,), by log_q, which `log_prob_gradient` takes on to the logits

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row; and where e^-d is beyond float64
    """
    q = as_array("log_q", log_q, np.float64, ("n",))
    p = as_array("log_p", log_p, np.float64, q.shape)
    check_choice("kind", kind, _KL_KINDS)
    wanted = check_flag("gradient", gradient)
    reduce = Reduction(len(q), weights, reduction, total_weight)
    d = counted("log_q", q, reduce.weights) - counted("log_p", p, reduce.weights)
    if kind == "k1":
        values, slope = d, np.ones_like(d)
    elif kind == "k2":
        values, slope = d * d / 2, d
    else:
        with np.errstate(over="ignore"):
            excess = np.expm1(-d)
        if not np.isfinite(excess).all():
            raise NotFiniteError(f"log_q: row {int(np.argmin(np.isfinite(excess)))} is too far below log_p for k3")
        values, slope = excess + d, -excess
    values = np.where(reduce.weights > 0, values, 0)
    return reduce.loss(values, slope * reduce.scale if wanted else None)


def clipped_ratio(
    log_prob: Any,
    old_log_prob: Any,
    advantages: Any,
    *,
    epsilon: float = 0.2,
    weights: Any = None,
    reduction: str = "mean",
    total_weight: float | None = None,
    gradient: bool = True,
) -> Loss:
    """-min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) with r = e^(log_prob - old_log_prob) (Schulman et al. 2017, PPO).

    Parameters
    ----------
    log_prob : float (n,)
        of the tokens under the policy that is trained
    old_log_prob : float (n,)
        under the policy that drew them, held fixed; their difference is clamped to -20..20, beyond which there is no slope
    advantages : float (n,)
        A, as of `group_advantage`: what each token's rollout was better than others
    epsilon : float, default 0.2
        0 to 1
    weights : float (n,), optional
        of rows, at least 0; None: 1 each. A row of weight 0 is not read
    reduction : str, default "mean"
        "mean" or "sum"
    total_weight : float, optional
        of the whole batch that these rows are a part of, where the reduction is "mean"
    gradient : bool, default True
        whether it is wanted

    Returns
    -------
    Loss
        gradient float64 (n,), by log_prob, which `log_prob_gradient` takes on to the logits: -A r where the ratio is not
        clipped, which is A >= 0 and r < 1 + epsilon, or A < 0 and r > 1 - epsilon; info: clip_fraction, the weighted share of
        rows that are clipped

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    new = as_array("log_prob", log_prob, np.float64, ("n",))
    old = as_array("old_log_prob", old_log_prob, np.float64, new.shape)
    gain = as_array("advantages", advantages, np.float64, new.shape)
    epsilon, wanted = check_number("epsilon", epsilon, 0, 1), check_flag("gradient", gradient)
    reduce = Reduction(len(new), weights, reduction, total_weight)
    names = ("log_prob", new), ("old_log_prob", old), ("advantages", gain)
    new, old, gain = (counted(name, each, reduce.weights) for name, each in names)
    apart = np.clip(new - old, -_MOST_LOG_RATIO, _MOST_LOG_RATIO)
    ratio = np.exp(apart)
    values = -np.minimum(ratio * gain, np.clip(ratio, 1 - epsilon, 1 + epsilon) * gain)
    clipped = np.where(gain >= 0, ratio > 1 + epsilon, ratio < 1 - epsilon)
    total = reduce.weights.sum()
    info = {"clip_fraction": float((reduce.weights * clipped).sum() / total) if total > 0 else 0.0}
    if not wanted:
        return reduce.loss(values, **info)
    inside = np.where(gain >= 0, ratio < 1 + epsilon, ratio > 1 - epsilon) & (np.abs(apart) < _MOST_LOG_RATIO)
    return reduce.loss(values, np.where(inside, -gain * ratio, 0) * reduce.scale, **info)
