"""Passes over whole texts, which no session keeps: hidden states of all rows, many texts a pass.

Texts of a pass lie one behind another in one cache, each a node whose rows see each other, or, of a causal model, each row
those of its text before it.  Nothing is padded, and a row's bits do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN
from fastdistill.runtime.forward_pass import ForwardPass, KeySet
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.network import Network
from fastdistill.runtime.pool import Pool

ROWS = 1024  # of a pass, where a text alone has no more


def hidden_states(network: Network, texts: Sequence[np.ndarray], most_texts: int | None = None) -> Iterator[np.ndarray]:
    """What leaves the model of each text, float32 (n, hidden_size), in their order.

    Parameters
    ----------
    network : Network
        what is run
    texts : Sequence[np.ndarray]
        int32 (columns, n) tokens of each text, n >= 1
    most_texts : int, optional
        that share a pass; default: as many as fit

    Raises
    ------
    ArgumentError
        for tokens that the model has not
    CapacityError
        where memory lacks
    NotFiniteError
    """
    for text in texts:
        for tokens, most in zip(text, network.plan.token_rows, strict=False):
            if not 0 <= int(tokens.min()) <= int(tokens.max()) < most:
                raise ArgumentError(
                    f"tokens must lie in 0..{most - 1}, for which the model has embeddings, got {tokens.min()}..{tokens.max()}"
                )
    groups = [*_groups([text.shape[1] for text in texts], most_texts)]
    if not groups:
        return
    rows = max(sum(texts[i].shape[1] for i in group) for group in groups)
    pool, caches = network.pool(rows, ()), {name: _cache(network, name, rows) for name in network.plan.windows}
    for group in groups:
        lengths = [texts[i].shape[1] for i in group]
        asked = _laid_out(network.plan, np.concatenate([texts[i] for i in group], axis=1), lengths, caches)
        hidden = _run(pool, asked)["hidden"]
        yield from np.split(hidden, np.cumsum(lengths[:-1]))


def pooled(network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the segment "pool" makes of rows, float32 (n, hidden_size): "pooled" (n, hidden_size), perhaps "scores" (n, labels).

    Raises
    ------
    UnsupportedError
        where the model has none
    """
    plan = network.plan
    if not plan.pooling:
        raise UnsupportedError(f"this model ({plan.architecture}) has no pooler: its file holds none")
    zeros, made = np.zeros(ROWS, np.int32), []
    for start in range(0, len(rows), ROWS):
        given = np.ascontiguousarray(rows[start : start + ROWS], np.float32)
        n = len(given)
        asked = ForwardPass(
            zeros[:n], zeros[:n], np.array([[0, 1]], np.int32), np.array([0, 1]), [_cache(network, OWN, 1)], None, given,
            zeros[:n], zeros[:n], zeros[:0], segments=("pool",), want_outputs=True,
        )  # fmt: skip
        made.append(_run(network.pool(n, ()), asked))
    return {name: np.concatenate([each[name] for each in made]) for name in made[0]}


def _groups(lengths: Sequence[int], most_texts: int | None) -> Iterator[range]:
    """Numbers of texts that share a pass: neighbours of at most ROWS rows together, or one of more."""
    start, rows = 0, 0
    for i, length in enumerate(lengths):
        if i > start and (rows + length > ROWS or i - start == most_texts):
            yield range(start, i)
            start, rows = i, 0
        rows += length
    if lengths:
        yield range(start, len(lengths))


def _laid_out(plan: Plan, tokens: np.ndarray, lengths: Sequence[int], caches: dict[str, KVCache]) -> ForwardPass:
    """The pass of texts that lie one behind another; tokens (columns, rows)."""
    rows = tokens.shape[1]
    starts, counts = np.cumsum([0, *lengths[:-1]]), np.array(lengths)
    texts = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    numbers = np.arange(rows, dtype=np.int32)
    positions = numbers - starts[texts].astype(np.int32)
    if plan.causal:
        nodes, runs = numbers, np.stack([starts[texts], positions + 1], axis=1)
    else:
        nodes, runs = texts, np.stack([starts, counts], axis=1)
    runs, offsets = np.ascontiguousarray(runs, np.int32), np.arange(len(runs) + 1)
    sets = {name: KeySet(numbers, nodes, runs, offsets, [cache]) for name, cache in caches.items()}
    own = sets.pop(OWN)
    reads = numbers if plan.outputs["hidden"] in plan.read_values else numbers[:0]
    return ForwardPass(
        **vars(own), tokens=np.ascontiguousarray(tokens[: plan.token_columns]), inputs=None, positions=positions,
        sequences=np.zeros(rows, np.int32), read_rows=reads, want_outputs=True, end_layer=plan.num_layers,
        others=sets or None,
    )  # fmt: skip


def _run(pool: Pool, asked: ForwardPass) -> dict[str, np.ndarray]:
    """The outputs of a pass, in arrays of their own."""
    seat = pool.take()
    try:
        return {name: array.copy() for name, array in seat.executor.run(asked).outputs.items()}
    finally:
        pool.give_back(seat)


def _cache(network: Network, key_set: str, slots: int) -> KVCache:
    cache = KVCache(network.plan, slots, network.cache_dtype, key_set)
    cache.reserve(0, slots)
    return cache
