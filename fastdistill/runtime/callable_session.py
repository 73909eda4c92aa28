"""A session over any function from tokens to logits: decoders run on models that live elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.boundary import check_array, check_integer, check_integers
from fastdistill.kernels.row_statistics import row_statistics
from fastdistill.runtime.pending import Pending, nothing_pending
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows, check_read, common_prefix, draw, read_rows


def from_callable(
    function: Callable[[np.ndarray], np.ndarray], vocab_size: int, capacity: int = 1 << 20, max_rows: int = 256
) -> CallableSession:
    """Make a session of a function.

    function    tokens int32 (n,) -> logits (n, vocab_size), row i for the token after tokens[: i + 1]; called with the
                whole context each time, so law 1 holds as far as the function keeps it
    raises      ArgumentError when the function returns anything else
    """
    return CallableSession(function, vocab_size, capacity, max_rows)


class CallableSession:
    """The session protocol over a function; trees are run path by path, rows of one node cannot see each other."""

    def __init__(
        self, function: Callable[[np.ndarray], np.ndarray], vocab_size: int, capacity: int, max_rows: int
    ) -> None:
        if not callable(function):
            raise ArgumentError(f"function must be callable, got {type(function).__name__}")
        self._function = function
        self.vocab_size = check_integer("vocab_size", vocab_size, 1, 1 << 30)
        self.capacity = check_integer("capacity", capacity, 1, 1 << 30)
        self.max_rows = check_integer("max_rows", max_rows, 1, 1 << 30)
        self.tokens = np.empty(0, np.int32)
        self._pending: Pending | None = None
        self.writer: object = None  # as in Session

    @property
    def length(self) -> int:
        """Committed tokens."""
        return len(self.tokens)

    @property
    def pending(self) -> int:
        """How many rows are pending."""
        return 0 if self._pending is None else self._pending.rows

    def forward(
        self,
        tokens: Sequence[int] | np.ndarray | None = None,
        *,
        parents: Sequence[int] | None = None,
        rows: str | Sequence[int] = "all",
        read: Read = STATISTICS_ONLY,
        **others: Any,
    ) -> Rows:
        """As Session.forward, for tokens, parents, rows and read.

        raises  UnsupportedError for what a plain function cannot do (inputs, nodes, positions, replace, layers, hidden)
        """
        check_read(read, None, self.vocab_size)
        refused = [name for name, value in others.items() if value is not None]
        if refused or read.hidden:
            raise UnsupportedError(f"a session over a function cannot give or take {', '.join(refused or ['hidden'])}")
        ids = check_integers("tokens", tokens, 0, self.vocab_size - 1)
        if len(ids) > self.max_rows:
            raise CapacityError(f"{len(ids)} rows are more than max_rows = {self.max_rows}")
        reads = read_rows(rows, len(ids))
        check_read(read, len(reads), self.vocab_size)
        if parents is None:
            return self._chain(ids, reads, read)
        before = self._pending or nothing_pending((self.length, self.length), 0)
        after = before.extended(ids, None, parents, None, self.length)
        paths = [np.concatenate([self.tokens, after.tokens[after.seen_by(before.rows + int(row))]]) for row in reads]
        logits = [self._logits(path)[-1:] for path in paths]
        result = self._result(logits, read, after.positions[before.rows + reads], paths)
        self._pending = after
        return result

    def _chain(self, ids: np.ndarray, reads: np.ndarray, read: Read) -> Rows:
        if self._pending is not None:
            raise ArgumentError(f"{self._pending.rows} rows are pending: keep some (or none) first, or name parents")
        if self.length + len(ids) > self.capacity:
            raise CapacityError(f"{len(ids)} rows after {self.length} do not fit a capacity of {self.capacity}")
        context = np.concatenate([self.tokens, ids])
        positions = self.length + reads
        logits = [self._logits(context)[positions]] if len(reads) else []
        result = self._result(logits, read, positions, [context[: position + 1] for position in positions])
        self.tokens = context
        return result

    def prefill(self, tokens: Sequence[int] | np.ndarray, read: Read = STATISTICS_ONLY) -> Rows:
        """Commit a chain of any length; reads the last row."""
        check_read(read, 1, self.vocab_size)
        ids = check_integers("tokens", tokens, 0, self.vocab_size - 1)
        return self._chain(ids, read_rows("last", len(ids)), read)

    def common_prefix(self, tokens: np.ndarray) -> int:
        """How many of these tokens, from the first, are committed."""
        return common_prefix(self.tokens, tokens)

    def keep(self, indices: Sequence[int]) -> None:
        """Commit these pending rows, in this order; forget the others."""
        pending = self._pending or nothing_pending((self.length, self.length), 0)
        kept = check_integers("keep's indices", indices, 0, pending.rows - 1, empty=True).tolist()
        pending.check_path(kept)
        if self.length + len(kept) > self.capacity:
            raise CapacityError(
                f"keeping {len(kept)} rows after {self.length} does not fit a capacity of {self.capacity}"
            )
        self.tokens = np.concatenate([self.tokens, pending.tokens[kept].astype(np.int32)])
        self._pending = None

    def truncate(self, length: int) -> None:
        """Forget committed tokens from `length` on, and all pending rows."""
        self.tokens = self.tokens[: check_integer("length", length, 0, self.length)]
        self._pending = None

    def fork(self) -> CallableSession:
        """A session of its own with the same committed tokens."""
        other = CallableSession(self._function, self.vocab_size, self.capacity, self.max_rows)
        other.tokens = self.tokens
        return other

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        given = self._function(tokens.copy())
        try:
            logits = np.ascontiguousarray(given, np.float32)
        except (TypeError, ValueError):
            raise ArgumentError(f"the function must return logits (n, {self.vocab_size}), got {given!r:.80}") from None
        check_array("the function's result", logits, np.float32, (len(tokens), self.vocab_size))
        return logits

    def _result(self, parts: list[np.ndarray], read: Read, positions: np.ndarray, seen: list[np.ndarray]) -> Rows:
        logits = np.concatenate([np.empty((0, self.vocab_size), np.float32), *parts])
        if read.banned is not None:
            logits[:, read.banned] = -np.inf
        statistics = row_statistics(logits)
        tokens = draw(read, statistics, logits, positions, lambda row: seen[row], threads=1)
        log_probs = None
        if read.log_prob_of is not None:
            log_probs = logits[np.arange(len(logits)), read.log_prob_of] - statistics.log_sum_exp
        return Rows(statistics, tokens, log_probs, logits if read.logits else None)
