"""Pools of n-grams, so small that they are full at once, and what is inserted into them in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.fixed_point.ngram_pool import NgramPool as ReferencePool
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, same

# So few tokens that n-grams come again and again; tokens that differ in their highest bits and their sign alone, the ends of int32,
# and tokens enough that nothing comes again.
VOCABULARIES = [[0], [0, -1], [0, 1 << 30, -(1 << 31)], [-(2**31), 2**31 - 1, 7, 0], list(range(40))]
Insertions = list[np.ndarray | None]  # None: clear


def any_insertions(draw: Choices, ngram: int) -> Insertions:
    """Rows one under, at and over one n-gram, several rows, longer texts; None: clear."""
    vocabulary, random = np.array(draw.choice(VOCABULARIES), np.int32), draw.generator()
    shapes = [
        (0,),
        (ngram - 1,),
        (ngram,),
        (ngram + 1,),
        (3, ngram + 2),
        (2, 0),
        (0, ngram),
        (2, 2, ngram),
        (60,),
        None,
    ]
    chosen = [draw.choice(shapes) for _ in range(draw.integer(1, 6))]
    return [None if shape is None else random.choice(vocabulary, shape) for shape in chosen]


def any_settings(draw: Choices) -> dict[str, int]:
    """One n-gram, one a key, one key, keys of several tokens."""
    key = draw.integer(1, 3)
    ngram, capacity = draw.choice([key + 1, key + 2, key + 16]), draw.choice([1, 2, 3, 5, 17, 100])
    return {"ngram": ngram, "capacity": capacity, "per_key": draw.choice([1, 2, 3, 256]), "key": key}


def cases(draw: Choices) -> Case:
    """Settings of a pool, and as `inserted` what comes in, in turn."""
    settings = any_settings(draw)
    return {**settings, "inserted": any_insertions(draw, settings["ngram"])}


def insert(pool: Any, tokens: np.ndarray | None) -> None:
    """Insert, or clear."""
    if tokens is None:
        pool.clear()
    else:
        pool.insert(tokens)


def keys(inserted: Iterable[np.ndarray | None], key: int) -> set[tuple[int, ...]]:
    """Every key there may be, and one that there is not."""
    found = {(12345,) * key}
    for tokens in inserted:
        if tokens is not None and tokens.shape[-1] >= key:
            windows = np.lib.stride_tricks.sliding_window_view(tokens, key, axis=-1)
            found |= set(map(tuple, windows.reshape(-1, key).tolist()))
    return found


def same_pools(pool: Any, want: Any, inserted: Insertions) -> dict[tuple[int, ...], np.ndarray]:
    """What a pool has of each key: that of the other, and all that it counts."""
    holds(len(pool) == len(want), f"the pool holds {len(pool)} n-grams, the reference {len(want)}")
    holds(len(pool) <= pool.capacity, f"the pool holds {len(pool)} n-grams, and its capacity is {pool.capacity}")
    found = {key: pool.lookup(key) for key in sorted(keys(inserted, pool.key))}
    for key, continuations in found.items():
        holds(len(continuations) <= pool.per_key, f"of key {key} there are {len(continuations)}")
        same(f"lookup({key})", continuations, want.lookup(key), np.int32)
    total = sum(map(len, found.values()))
    holds(total == len(pool), f"the pool counts {len(pool)} n-grams, and {total} are found")
    return found


def check(case: Case, function: Callable[..., Any] = kernels.NgramPool) -> Any:
    """A class with the methods of `NgramPool`: after each insertion all that it has of every key, and in which order."""
    settings = dict(case)
    inserted = settings.pop("inserted")
    pool, want = function(**settings), ReferencePool(**settings)
    found = []
    for tokens in inserted:
        insert(pool, tokens)
        insert(want, tokens)
        found.append(same_pools(pool, want, inserted))
    return found
