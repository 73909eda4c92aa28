"""A pool of n-grams: 1,000 windows of 5 tokens inserted, 1,000 keys looked up, beside ordered dicts of Python."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import NgramPool
from fastdistill.reference.fixed_point.ngram_pool import NgramPool as ReferencePool

NGRAM, WINDOWS = 5, 1000


class DictPool:
    """What one would write by hand: n-grams in order, and of each key its own."""

    def __init__(self, ngram: int, capacity: int = 4096, per_key: int = 8) -> None:
        self.ngram, self.capacity, self.per_key = ngram, capacity, per_key
        self.pool: OrderedDict[tuple[int, ...], None] = OrderedDict()
        self.of_key: dict[int, OrderedDict[tuple[int, ...], None]] = {}

    def insert(self, tokens: np.ndarray) -> None:
        row = tokens.tolist()
        for i in range(len(row) - self.ngram + 1):
            ngram = tuple(row[i : i + self.ngram])
            same_key = self.of_key.setdefault(ngram[0], OrderedDict())
            for ordered in (self.pool, same_key):
                ordered[ngram] = None
                ordered.move_to_end(ngram)
            if len(same_key) > self.per_key:
                del self.pool[same_key.popitem(last=False)[0]]
            elif len(self.pool) > self.capacity:
                oldest = self.pool.popitem(last=False)[0]
                del self.of_key[oldest[0]][oldest]
                if not self.of_key[oldest[0]]:
                    del self.of_key[oldest[0]]

    def lookup(self, key: int) -> list[tuple[int, ...]]:
        return [ngram[1:] for ngram in reversed(self.of_key.get(key, ()))]

    def clear(self) -> None:
        self.pool.clear()
        self.of_key.clear()


def refill(pool: Any, tokens: np.ndarray) -> Any:
    pool.clear()
    pool.insert(tokens)
    return pool


def again(pool: Any, tokens: np.ndarray) -> Any:
    pool.insert(tokens)
    return pool


def look_up(pool: Any, tokens: np.ndarray) -> Any:
    for key in tokens.tolist()[:WINDOWS]:
        pool.lookup(key)
    return pool


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    generator = np.random.default_rng(0)
    words = np.minimum(generator.zipf(1.2, WINDOWS + NGRAM - 1), 49151).astype(np.int32)  # a few are much of a text
    for case, work, capacity in (
        ("inserted into an empty pool", refill, 4096),
        ("inserted again", again, 4096),
        ("inserted into a full pool of 250", again, 250),
        ("looked up", look_up, 4096),
    ):
        pools = [pool(NGRAM, capacity) for pool in (NgramPool, DictPool, ReferencePool)]
        for pool in pools:
            refill(pool, words)
        ours, dicts, expected = pools

        def check(found: NgramPool, expected: ReferencePool = expected) -> None:
            for key in np.unique(words):
                np.testing.assert_array_equal(found.lookup(key), expected.lookup(key))

        compare(
            report, options, case, lambda threads, work=work, ours=ours: work(ours, words), check,
            partial(work, dicts, words), threaded=False,
        )  # fmt: skip
    return report
