"""What `kernels.row_divergence_topk` means."""

from __future__ import annotations

import numpy as np

from fastdistill.reference.distill.row_divergence import log_softmax, row_divergence


def row_divergence_topk(
    student,
    tokens,
    log_probs,
    kind="forward_kl",
    parameter=None,
    *,
    tail="bucket",
    temperature=1.0,
    labels=None,
    scale=1.0,
    label_scale=0.0,
    weights=None,
):
    """row_divergence of the law over outcomes: the listed tokens (rows, k), and unless tail="drop" one of all others."""
    x = student.astype(np.float64)
    rows, vocab = x.shape
    weights = np.ones(rows) if weights is None else weights
    _, label_values, gradient = row_divergence(
        x, x, labels=labels, label_scale=label_scale, weights=weights
    )  # the label's term alone
    values, log_law = np.zeros(rows), log_softmax(x / temperature)
    for row in np.flatnonzero(weights):
        listed = tokens[row] >= 0
        ids, log_p = tokens[row][listed], log_probs[row][listed].astype(np.float64)
        others = np.setdiff1d(np.arange(vocab), ids)
        if isinstance(tail, str) and tail == "drop":
            outcomes, log_p = list(map(lambda v: [v], ids)), log_p / temperature
        else:
            mass = max(1 - np.exp(log_p).sum(), 0) if isinstance(tail, str) else tail[row]
            with np.errstate(divide="ignore"):
                outcomes, log_p = [[v] for v in ids] + [others], np.append(log_p, np.log(mass))
        log_q = np.array([np.logaddexp.reduce(log_law[row, each], initial=-np.inf) for each in outcomes])
        found = row_divergence(log_q[None], log_p[None], kind, parameter)
        values[row] = found[0][0]
        for each, by, log_sum in zip(outcomes, found[2][0], log_q, strict=True):
            if log_sum > -np.inf:
                gradient[row, each] += weights[row] * scale / temperature * by * np.exp(log_law[row, each] - log_sum)
    return values, label_values, gradient
