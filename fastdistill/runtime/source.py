"""What an encoder makes of a source: keys and values that every row of a text attends to, and no row changes.

All of a source's rows see each other, so they run in one pass, of an executor that has room for all of them. The keys and
values of the encoder itself are gone afterwards. Sessions of the same source share what is left, for as long as one holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fastdistill.arguments import check_integers
from fastdistill.errors import CapacityError, UnsupportedError
from fastdistill.models.plan import Plan
from fastdistill.ops import CROSS, ENCODE
from fastdistill.runtime.forward_pass import ForwardPass, KeySet
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.pool import Pool


class Encodes(Protocol):
    """What encoding needs of a network.

    Attributes
    ----------
    plan : Plan
        what is computed
    """

    plan: Plan

    def pool(self, max_rows: int, taps: tuple[str, ...]) -> Pool: ...


class Source:
    """Tokens that an encoder has read.

    Attributes
    ----------
    tokens : int32 (n,)
        n >= 1, of the source
    cache : KVCache
        keys and values, of each layer that attends to them, in slots 0 .. n - 1
    pool : Pool
        the executors that made them: the next source of that length finds them
    """

    __slots__ = ("__weakref__", "cache", "pool", "tokens")

    def __init__(self, tokens: np.ndarray, cache: KVCache, pool: Pool) -> None:
        self.tokens, self.cache, self.pool = tokens, cache, pool


def check_source(tokens: Any, plan: Plan) -> np.ndarray:
    """A source's tokens, int32 (n,), an array of its own.

    Raises
    ------
    UnsupportedError
        where the model reads none
    ArgumentError
    CapacityError
        where it is longer than the model
    """
    if not plan.source_positions:
        raise UnsupportedError(f"this model ({plan.architecture}) has no encoder: it reads no source")
    ids = check_integers("source", tokens, 0, plan.vocab_size - 1)
    if len(ids) > plan.source_positions:
        raise CapacityError(
            f"the source has {len(ids)} tokens, more than the {plan.source_positions} that the model's encoder reads "
            f"({plan.positions_source})"
        )
    return np.array(ids, np.int32)


def encoding(plan: Plan, sources: Sequence[np.ndarray], cache_format: str) -> tuple[ForwardPass, list[KVCache]]:
    """The pass that reads the tokens of sources, each as if alone, and the caches that it leaves."""
    lengths = [len(tokens) for tokens in sources]
    slots = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    numbers = np.repeat(np.arange(len(sources), dtype=np.int32), lengths)
    runs = np.array([[0, n] for n in lengths], np.int32)
    sets = dict[str, KeySet]()
    for name in (ENCODE, CROSS):
        caches = [KVCache(plan, n, cache_format, name) for n in lengths]
        for cache, n in zip(caches, lengths, strict=True):
            cache.reserve(0, n)
        sets[name] = KeySet(slots, numbers, runs, np.arange(len(sources) + 1), caches)
    request = ForwardPass(
        **vars(sets[ENCODE]), tokens=np.concatenate(sources), inputs=None, positions=slots, sequences=numbers,
        read_rows=np.empty(0, np.int32), segments=(ENCODE,), others=sets,
    )  # fmt: skip
    return request, sets[CROSS].caches


def encode(network: Encodes, sources: Sequence[np.ndarray], cache_format: str) -> list[Source]:
    """Run the encoder over checked tokens of sources, in one pass.

    Raises
    ------
    CapacityError
        where memory lacks
    NotFiniteError
    """
    request, caches = encoding(network.plan, sources, cache_format)
    pool = network.pool(request.rows, ())
    seat = pool.take()
    try:
        seat.executor.run(request)
    finally:
        pool.give_back(seat)
    return [Source(tokens, cache, pool) for tokens, cache in zip(sources, caches, strict=True)]
