"""What the attention op means (Vaswani et al. 2017; grouped keys, Ainslie et al. 2023)."""

from __future__ import annotations

import numpy as np


def attention(q, keys, values, scale):
    """One row: q (heads, head_dim) over keys, values (kv_heads, n, head_dim) -> (heads, head_dim), in float64.

    Query heads share keys in groups: head h reads kv head h // (heads / kv_heads).
    """
    group = len(q) // len(keys)
    keys, values = (np.repeat(array.astype(np.float64), group, axis=0) for array in (keys, values))
    scores = np.einsum("hd,hnd->hn", q.astype(np.float64), keys) * scale
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.einsum("hn,hnd->hd", weights / weights.sum(axis=1, keepdims=True), values)
