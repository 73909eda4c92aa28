"""What `kernels.NgramPool` means."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np


class NgramPool:
    """The n-grams inserted last: at most `capacity`, at most `per_key` of them with the same first `key` tokens."""

    def __init__(self, ngram, capacity=4096, per_key=8, key=1):
        self.ngram, self.capacity, self.per_key, self.key = ngram, capacity, per_key, key
        self.pool = OrderedDict()  # of tuples, the least recently inserted first

    def insert(self, tokens):
        """Every window of `ngram` tokens of each row of tokens (..., n), in their order."""
        for row in tokens.reshape(int(np.prod(tokens.shape[:-1])), tokens.shape[-1]).tolist():
            for i in range(len(row) - self.ngram + 1):
                ngram = tuple(row[i : i + self.ngram])
                self.pool[ngram] = None
                self.pool.move_to_end(ngram)
                same_key = self._of_key(ngram[: self.key])
                if len(same_key) > self.per_key:
                    del self.pool[same_key[0]]
                if len(self.pool) > self.capacity:
                    self.pool.popitem(last=False)

    def lookup(self, key, count=None):
        """The continuations of key (an int, or (key,)), (found, ngram - key): the last inserted first, at most `count`."""
        found = self._of_key(tuple(np.atleast_1d(key).tolist()))[::-1][:count]
        return np.array([ngram[self.key :] for ngram in found], np.int32).reshape(-1, self.ngram - self.key)

    def _of_key(self, key):
        return [ngram for ngram in self.pool if ngram[: self.key] == key]

    def __len__(self):
        return len(self.pool)

    def clear(self):
        """Forget all n-grams."""
        self.pool.clear()

    def copy(self):
        """A pool of the same n-grams, in the same order, that goes its own way."""
        other = NgramPool(self.ngram, self.capacity, self.per_key, self.key)
        other.pool = self.pool.copy()
        return other
