"""A session over any function from tokens to logits: decoders run on models that live elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.boundary import check_array, check_integer
from fastdistill.kernels.row_statistics import row_statistics
from fastdistill.runtime.pending import Pending, nothing_pending
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows, check_read, draw, integers, read_rows


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

    @property
    def length(self) -> int:
        """Committed tokens."""
        return len(self.tokens)

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
        refused = [name for name, value in others.items() if value is not None] + (
            ["read.hidden"] if read.hidden else []
        )
        if refused:
            raise UnsupportedError(f"a session over a function cannot take {', '.join(refused)}")
        ids = integers("tokens", tokens, 0, self.vocab_size - 1)
        reads = read_rows(rows, len(ids))
        check_read(read, len(reads), self.vocab_size)
        if parents is None:
            if self._pending is not None:
                raise ArgumentError(
                    f"{self._pending.rows} rows are pending: keep some (or none) of them first, or name parents"
                )
            if self.length + len(ids) > self.capacity:
                raise CapacityError(f"{len(ids)} rows after {self.length} do not fit a capacity of {self.capacity}")
            context = np.concatenate([self.tokens, ids])
            logits = (
                self._logits(context)[self.length :][reads]
                if len(reads)
                else np.empty((0, self.vocab_size), np.float32)
            )
            seen = [context[: self.length + row + 1] for row in reads]
            result = self._result(logits, read, reads + np.int32(self.length), seen)
            self.tokens = context
            return result
        before = self._pending or nothing_pending((self.length, self.length), 0)
        after = before.extended(ids, None, parents, None, self.length)
        paths = [np.concatenate([self.tokens, after.tokens[after.seen_by(before.rows + int(row))]]) for row in reads]
        logits = (
            np.stack([self._logits(path)[-1] for path in paths])
            if paths
            else np.empty((0, self.vocab_size), np.float32)
        )
        result = self._result(logits, read, after.positions[before.rows + reads], paths)
        self._pending = after
        return result

    def prefill(self, tokens: Sequence[int] | np.ndarray, read: Read = STATISTICS_ONLY) -> Rows:
        """Commit a chain; reads the last row."""
        return self.forward(tokens, rows="last", read=read)

    def keep(self, indices: Sequence[int]) -> None:
        """Commit these pending rows, in this order; forget the others."""
        pending = self._pending or nothing_pending((self.length, self.length), 0)
        kept = [check_integer("keep's index", index, 0, pending.rows - 1) for index in indices]
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
        logits = np.ascontiguousarray(self._function(tokens), np.float32)
        check_array("the function's result", logits, np.float32, (len(tokens), self.vocab_size))
        return logits

    def _result(self, logits: np.ndarray, read: Read, positions: np.ndarray, seen: list[np.ndarray]) -> Rows:
        logits = np.ascontiguousarray(logits)
        statistics = row_statistics(logits)
        tokens = draw(read, statistics, logits, positions, lambda row: seen[row], threads=1)
        log_probs = None
        if read.log_prob_of is not None:
            log_probs = logits[np.arange(len(logits)), read.log_prob_of] - statistics.log_sum_exp
        return Rows(statistics, tokens, log_probs, logits if read.logits else None)
