"""What `kernels.row_divergence` means."""

from __future__ import annotations

import numpy as np


def row_divergence(
    student,
    teacher,
    kind="forward_kl",
    parameter=None,
    *,
    temperature=1.0,
    labels=None,
    scale=1.0,
    label_scale=0.0,
    weights=None,
    teacher_is_law=False,
):
    """Of rows (rows, vocab): their divergences, -log q of their labels, each (rows,), and the gradient by the student's logits.

    With psi = q phi, phi the derivative of D by q, the gradient by the logits is (psi - q sum psi) / temperature.
    """
    x = student.astype(np.float64)
    log_q = log_softmax(x / temperature)
    q = np.exp(log_q)
    values, psi = divergence(kind, parameter, x / temperature, log_q, target(teacher, temperature, teacher_is_law))
    by_logits = (psi if kind == "logit_mse" else psi - q * psi.sum(axis=1, keepdims=True)) / temperature
    weights = np.ones(len(x)) if weights is None else weights
    gradient = (weights * scale)[:, None] * by_logits
    label_values = np.zeros(len(x))
    for row, label in enumerate([] if labels is None else labels):
        if label >= 0 and weights[row] != 0:
            log_law = log_softmax(x[row : row + 1])[0]
            label_values[row] = -log_law[label]
            gradient[row] += weights[row] * label_scale * (np.exp(log_law) - (np.arange(x.shape[1]) == label))
    return np.where(weights == 0, 0.0, values), label_values, gradient


def log_softmax(z):
    """log of the softmax of rows."""
    below = z - z.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def target(teacher, temperature, is_law):
    """The teacher's logits over temperature and its log p, or None."""
    if teacher is None:
        return None
    with np.errstate(divide="ignore"):
        logits = np.log(teacher.astype(np.float64)) if is_law else teacher.astype(np.float64)
    return logits / temperature, log_softmax(logits / temperature)


def divergence(kind, parameter, z, log_q, of_teacher):
    """D of each row, and psi: q times its derivative by q (that by the logits, of logit_mse); 0 log 0 = 0."""
    q = np.exp(log_q)
    if kind == "entropy":
        terms = -q * np.where(q > 0, log_q, 0)
        return terms.sum(axis=1), terms
    teacher_z, log_p = of_teacher
    p = np.exp(log_p)
    a = parameter
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        forward = np.where(p > 0, p * (log_p - log_q), 0).sum(axis=1), -p
        cross = np.where(p > 0, p * log_q, 0)
        terms = np.where(q > 0, q * (log_q - log_p), 0)
        reverse = terms.sum(axis=1), terms
        variation = np.abs(p - q).sum(axis=1) / 2, q * np.sign(q - p) / 2
    accepted = np.minimum(p, q).sum(axis=1)
    if kind == "forward_kl":
        return forward
    if kind == "reverse_kl":
        return reverse
    if kind == "soft_cross_entropy":
        return -cross.sum(axis=1), -p
    if kind == "total_variation":
        return variation
    if kind == "log_acceptance":  # less q / 2, which cancels where they have little in common
        return -np.log(accepted), (variation[1] - q / 2) / accepted[:, None]
    if kind in ("jeffreys", "mixed_kl"):
        return mixed(1, forward, 1, reverse) if kind == "jeffreys" else mixed(a, forward, 1 - a, reverse)
    if kind == "adaptive_kl":
        head = np.array([head_share(*row, a) for row in zip(p, q, strict=True)])
        return mixed(head, forward, 1 - head, reverse)
    if kind == "acceptance_hybrid":
        share = np.exp(-a * accepted)
        return mixed(share, forward, 1 - share, variation)
    if kind == "logit_mse":
        apart = np.where(np.isneginf(z) & np.isneginf(teacher_z), 0, z - np.where(np.isneginf(teacher_z), 0, teacher_z))
        return (apart**2).mean(axis=1), 2 * apart / z.shape[1]
    if kind == "probability_mse":
        return ((q - p) ** 2).mean(axis=1), 2 * q * (q - p) / z.shape[1]
    if kind in ("alpha", "renyi"):
        with np.errstate(invalid="ignore"):
            product = np.where((p > 0) & (q > 0), np.exp(a * log_p + (1 - a) * log_q), 0)
            total = product.sum(axis=1)
        if kind == "alpha":
            return (1 - total) / (a * (1 - a)), -product / a
        return np.log(total) / (a - 1), -product / total[:, None]
    # p, q against a middle between them
    b = {"jsd": a, "skew_kl": a, "skew_reverse_kl": 1 - a}[kind]
    middle = b * p + (1 - b) * q
    with np.errstate(invalid="ignore", divide="ignore"):
        log_m = np.logaddexp(np.log(b) + log_p, np.log1p(-b) + log_q)
        p_to_m = np.where(p > 0, p * (log_p - log_m), 0).sum(axis=1)
        to_m, over = np.where(q > 0, q * (log_q - log_m), 0), np.where(middle > 0, q / middle, 0)
        q_to_m = to_m.sum(axis=1)
        if kind == "jsd":
            return b * p_to_m + (1 - b) * q_to_m, (1 - b) * to_m
        if kind == "skew_kl":
            return p_to_m, -(1 - b) * p * over
        return q_to_m, to_m - a * q * over


def mixed(a, one, b, other):
    """a times one divergence and b times another: value and psi."""
    a, b = np.broadcast_to(a, one[0].shape), np.broadcast_to(b, one[0].shape)
    return a * one[0] + b * other[0], a[:, None] * one[1] + b[:, None] * other[1]


def head_share(p, q, share):
    """Of sum |p - q|, the part in the head: tokens by falling p for as long as they sum up to `share` at most, at least one."""
    order = np.argsort(-p, kind="stable")
    head = np.cumsum(p[order]) <= share
    head[0] = True
    gap = np.abs(p - q)[order]
    return gap[head].sum() / gap.sum() if gap.sum() > 0 else 0.5
