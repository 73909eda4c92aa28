"""What `kernels.expand_tree` means."""

from __future__ import annotations

import numpy as np


def expand_tree(logits, scores, count):
    """The `count` best continuations of a frontier: tokens, rows, scores, each (found,).

    logits (frontier, vocab) after each node and its scores (frontier,) give scores[row] + log
    softmax(logits[row])[token].
    """
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    total = (scores.astype(np.float64)[:, None] + z - np.log(np.exp(z).sum(axis=1, keepdims=True))).ravel()
    order = np.argsort(-total, kind="stable")  # the best first, among equals the lowest row, then the lowest token
    order = order[total[order] > -np.inf][:count]
    rows, tokens = np.divmod(order, logits.shape[1])
    return tokens, rows, total[order]
