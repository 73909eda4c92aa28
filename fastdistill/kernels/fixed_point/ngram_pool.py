"""The n-grams of late, found by their first tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from fastdistill.arguments import as_array, check_integer, check_integers
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import aligned_bytes, const, ffi, lib, pointer
from fastdistill.platform import around_forks

_FIRST_TOKEN, _LAST_TOKEN = -(2**31), 2**31 - 1
_AT_WORK = threading.Lock()  # in a pool, for microseconds; a fork waits for it, so that its pools are whole

around_forks(_AT_WORK.acquire, _AT_WORK.release)


class NgramPool:
    """The n-grams inserted last, for drafting: what followed a token once may follow it again.

    Inserting and looking up take a time that does not grow with the pool. Threads may share one: calls take turns.

    References
    ----------
    Fu et al. 2024, lookahead decoding: its pool of n-grams
    """

    def __init__(self, ngram: int, capacity: int = 4096, per_key: int = 8, key: int = 1) -> None:
        """An empty pool; its memory is taken here, once.

        Parameters
        ----------
        ngram : int
            tokens of each n-gram, key + 1 .. 64
        capacity : int, default 4096
            most n-grams kept, 1 .. 2^24
        per_key : int, default 8
            most of them with one key, 1 .. 256
        key : int, default 1
            leading tokens that an n-gram is looked up by, 1 .. ngram - 1

        Raises
        ------
        ArgumentError
        MemoryError
        """
        key = check_integer("key", key, 1, lib.FD_NGRAM - 1)
        ngram = check_integer("ngram", ngram, key + 1, lib.FD_NGRAM)
        capacity = check_integer("capacity", capacity, 1, 2**24)
        per_key = check_integer("per_key", per_key, 1, 256)
        self._memory = aligned_bytes(lib.fd_ngram_pool_bytes(ngram, capacity))
        self._native = ffi.new("struct fd_ngram_pool *", [ngram, capacity, per_key, key, pointer(self._memory)])

    @property
    def ngram(self) -> int:
        """Tokens of each n-gram."""
        return self._native.ngram

    @property
    def capacity(self) -> int:
        """Most n-grams kept."""
        return self._native.capacity

    @property
    def per_key(self) -> int:
        """Most of them with one key."""
        return self._native.per_key

    @property
    def key(self) -> int:
        """Leading tokens that an n-gram is looked up by."""
        return self._native.key

    def insert(self, tokens: np.ndarray) -> None:
        """Every window of `ngram` tokens of each row, from the first to the last, row by row.

        One that is there already becomes the most recent. Where a key has more than per_key, the one of them that was
        inserted least recently goes; where there are more than capacity, the least recent of all.

        Parameters
        ----------
        tokens : int32 (..., n)
            any values; rows shorter than `ngram` hold no n-gram

        Raises
        ------
        ArgumentError
        """
        tokens = as_array("tokens", tokens, np.int32, (..., "n"))
        n = tokens.shape[-1]
        with _AT_WORK:
            lib.fd_ngram_pool_insert(self._native, tokens.size // max(1, n), n, const(tokens))

    def lookup(self, key: int | Sequence[int] | np.ndarray, count: int | None = None) -> np.ndarray:
        """What has followed these tokens, the most recently inserted first; changes nothing.

        Parameters
        ----------
        key : int | Sequence[int] | np.ndarray
            a token where `key` is 1, or int32 (key,), or a sequence of so many tokens
        count : int, optional
            the most continuations, 0 or more; None: all

        Returns
        -------
        int32 (found, ngram - key)

        Raises
        ------
        ArgumentError
        """
        if isinstance(key, (int, np.integer)):
            tokens = np.array([check_integer("key", key, _FIRST_TOKEN, _LAST_TOKEN)], np.int32)
        elif isinstance(key, (set, frozenset)):
            raise ArgumentError(f"key must have an order, got {type(key).__name__}")
        else:
            tokens = check_integers("key", key, _FIRST_TOKEN, _LAST_TOKEN)
        if len(tokens) != self.key:
            raise ArgumentError(f"key must have {self.key} tokens, got {len(tokens)}")
        count = self.per_key if count is None else min(check_integer("count", count, 0, 2**31 - 1), self.per_key)
        continuations = np.empty((count, self.ngram - self.key), np.int32)
        with _AT_WORK:
            found = lib.fd_ngram_pool_lookup(self._native, const(tokens), count, pointer(continuations))
        return continuations[:found]

    def __len__(self) -> int:
        with _AT_WORK:
            return lib.fd_ngram_pool_count(self._native)

    def clear(self) -> None:
        """Forget all n-grams."""
        with _AT_WORK:
            lib.fd_ngram_pool_clear(self._native)

    def copy(self) -> NgramPool:
        """A pool of the same n-grams, in the same order, that goes its own way.

        Raises
        ------
        MemoryError
        """
        other = NgramPool(self.ngram, self.capacity, self.per_key, self.key)
        with _AT_WORK:
            other._memory[:] = self._memory
        return other

    __copy__ = copy

    def __deepcopy__(self, memo: object) -> NgramPool:
        return self.copy()
