"""What `kernels.top_k` means."""

from __future__ import annotations

import numpy as np


def top_k(logits, k):
    """Tokens (rows, k) of the largest logits (rows, vocab) of each row, the largest first, and these."""
    tokens = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return tokens.astype(np.int32), np.take_along_axis(logits, tokens, axis=1)
