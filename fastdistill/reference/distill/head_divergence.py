"""What `kernels.head_divergence` means."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.distill.row_divergence import row_divergence
from fastdistill.reference.distill.row_divergence_topk import row_divergence_topk


def head_divergence(
    hidden,
    head,
    kind="forward_kl",
    parameter=None,
    *,
    teacher=None,
    teacher_hidden=None,
    teacher_head=None,
    tokens=None,
    log_probs=None,
    tail="bucket",
    temperature=1.0,
    labels=None,
    scale=1.0,
    label_scale=0.0,
    weights=None,
    teacher_is_law=False,
):
    """row_divergence of the logits hidden head^T, and the gradients by both of them: G head and G^T hidden, G by the logits."""
    x, w = hidden.astype(np.float64), head.astype(np.float64)
    if teacher_hidden is not None:
        teacher = teacher_hidden.astype(np.float64) @ teacher_head.astype(np.float64).T
    options = {
        "temperature": temperature,
        "labels": labels,
        "scale": scale,
        "label_scale": label_scale,
        "weights": weights,
    }
    if tokens is not None:
        found = row_divergence_topk(x @ w.T, tokens, log_probs, kind, parameter, tail=tail, **options)
    else:
        found = row_divergence(x @ w.T, teacher, kind, parameter, teacher_is_law=teacher_is_law, **options)
    values, label_values, by_logits = found
    return values, label_values, by_logits @ w, by_logits.T @ x
