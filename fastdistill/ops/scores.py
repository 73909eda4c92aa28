"""Scores of queries against keys: what attention and its gradients stand on."""

from __future__ import annotations

import numpy as np


def in_window(slots: np.ndarray, distances: np.ndarray, window: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """The slots at distances (key position - query position) beyond -window, up to ahead, and these; 0: all."""
    seen = (distances > (-window if window else -np.inf)) & (distances <= (ahead or np.inf))
    return slots[seen], distances[seen]


def capped_scores(q: np.ndarray, keys: np.ndarray, scale: float, softcap: float = 0.0) -> np.ndarray:
    """One row: q (heads, head_dim) over keys (kv_heads, n, head_dim) -> (heads, n), in float64.

    Query heads share keys in groups: head h reads kv head h // (heads / kv_heads) (Vaswani et al. 2017; Ainslie et al.
    2023). Scores q k scale become softcap tanh(s / softcap), where there is one (Gemma 2).
    """
    scores = np.einsum("hd,hnd->hn", q.astype(np.float64), per_head(keys, len(q))) * scale
    return softcap * np.tanh(scores / softcap) if softcap else scores


def per_head(keys: np.ndarray, heads: int) -> np.ndarray:
    """Keys or values (kv_heads, ...), in float64, once for each query head: (heads, ...)."""
    return np.repeat(keys.astype(np.float64), heads // len(keys), axis=0)


def bias_of(
    slopes: np.ndarray | None, distances: np.ndarray, table: np.ndarray | None = None, reach: int = 0
) -> np.ndarray | float:
    """What is added to scores (heads, n): slope times distance (ALiBi, Press et al. 2022), or what a table, heads times 2 reach + 1, has for it.

    A distance beyond reach has the number of reach (T5, Raffel et al. 2020).
    """
    if table is not None:
        return table.reshape(-1, 2 * reach + 1)[:, distances.clip(-reach, reach) + reach].astype(np.float64)
    return 0.0 if slopes is None else np.outer(slopes.astype(np.float64), distances)
