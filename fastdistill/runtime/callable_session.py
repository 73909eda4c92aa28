"""A session over any function from tokens to logits: decoders run on models that live elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill.arguments import any_array, check_array, check_callable, check_integer, check_integers, refuse
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.kernels.forward.row_statistics import row_statistics
from fastdistill.messages import listed
from fastdistill.runtime.pending import Pending, nothing_pending, pending_over
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows, check_read, common_prefix, draw, read_rows


def from_callable(
    function: Callable[[np.ndarray], np.ndarray],
    vocab_size: int,
    capacity: int = 1 << 20,
    max_rows: int = 256,
    mask_token: int | None = None,
    logit_shift: int = 0,
) -> CallableSession:
    """Make a session of a function.

    function     tokens int32 (n,) -> logits (n, vocab_size), row i for the token after tokens[: i + 1]; called with the
                 whole context each time, so a token's logits depend on those before it alone as far as the function's do
    mask_token   of a masked diffusion model: row i of the logits is for tokens[i] then, and may look at all tokens
    logit_shift  1: or for tokens[i + 1], as Dream's
    raises       ArgumentError when the function returns anything else
    """
    return CallableSession(function, vocab_size, capacity, max_rows, mask_token, logit_shift)


class CallableSession:
    """The session protocol over a function, which is called once a node that is read from, with all that the node sees.

    tokens       int32 (length,): the committed ones
    vocab_size   columns of the logits
    capacity     most committed tokens
    max_rows     most rows of one forward
    mask_token   what stands where a masked diffusion model is to write; None: it is none
    causal       without a mask token: rows see what is before them
    logit_shift  1: row i of a masked diffusion model predicts position i + 1, not its own
    writer       as in Session
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        vocab_size: int,
        capacity: int,
        max_rows: int,
        mask_token: int | None,
        logit_shift: int,
    ) -> None:
        check_callable("function", function)
        self._function = function
        self.vocab_size = check_integer("vocab_size", vocab_size, 1, 1 << 30)
        self.capacity = check_integer("capacity", capacity, 1, 1 << 30)
        self.max_rows = check_integer("max_rows", max_rows, 1, 1 << 30)
        self.mask_token = mask_token
        if mask_token is not None:
            self.mask_token = check_integer("mask_token", mask_token, 0, vocab_size - 1)
        self.causal = mask_token is None
        self.logit_shift = check_integer("logit_shift", logit_shift, 0, 1)
        self.tokens = np.empty(0, np.int32)
        self._pending: Pending | None = None
        self.writer: object = None

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
        nodes: Sequence[int] | None = None,
        replace: tuple[int, int] | None = None,
        rows: str | Sequence[int] = "all",
        read: Read = STATISTICS_ONLY,
        **others: Any,
    ) -> Rows:
        """As Session.forward, for tokens, parents, nodes, replace, rows and read.

        A function counts positions by its tokens: rows stand where those that they replace stood, in the order of their node.

        raises  UnsupportedError for what a plain function cannot do (inputs, positions, layers, hidden)
        """
        check_read(read, None, self.vocab_size)
        refused = [name[:40] for name, value in others.items() if value is not None]
        if refused or read.hidden:
            raise UnsupportedError(f"a session over a function cannot give or take {listed(refused or ['hidden'])}")
        ids = check_integers("tokens", tokens, 0, self.vocab_size - 1)
        if len(ids) > self.max_rows:
            raise CapacityError(f"{len(ids)} rows are more than max_rows = {self.max_rows}")
        reads = read_rows(rows, len(ids))
        read = check_read(read, len(reads), self.vocab_size)
        if parents is None and nodes is None and replace is None:
            return self._chain(ids, reads, read)
        before = pending_over(self._pending, replace, self.length, 0)
        start, end = before.hides
        after = before.extended(ids, nodes, parents, None, start)
        numbers = before.rows + reads
        logits = np.empty((len(reads), self.vocab_size), np.float32)
        texts: dict[int, np.ndarray] = {}  # of each node: the tokens that it sees
        for node in np.unique(after.nodes[numbers]).tolist():
            rows_seen = after.seen_by(node)
            texts[node] = np.concatenate([self.tokens[:start], after.tokens[rows_seen], self.tokens[end:]])
            of_node = np.flatnonzero(after.nodes[numbers] == node)
            places = [start + int(np.flatnonzero(rows_seen == row)[0]) for row in numbers[of_node]]
            logits[of_node] = self._logits(texts[node])[places]
        seen = [texts[node] for node in after.nodes[numbers].tolist()]
        result = self._result(logits, read, after.positions[numbers], seen)
        self._pending = after
        return result

    def _chain(self, ids: np.ndarray, reads: np.ndarray, read: Read) -> Rows:
        if self._pending is not None:
            raise ArgumentError(f"{self._pending.rows} rows are pending: keep some (or none) first, or name parents")
        if self.length + len(ids) > self.capacity:
            raise CapacityError(f"{len(ids)} rows after {self.length} do not fit a capacity of {self.capacity}")
        context = np.concatenate([self.tokens, ids])
        positions = self.length + reads
        seen = [context[: position + 1] for position in positions]
        logits = np.empty((len(reads), self.vocab_size), np.float32)
        if self.causal and len(reads):
            logits[:] = self._logits(context)[positions]
        elif not self.causal:  # rows of a chain do not see those after them
            for row, text in enumerate(seen):
                logits[row] = self._logits(text)[-1]
        result = self._result(logits, read, positions, seen)
        self.tokens = context
        return result

    def prefill(self, tokens: Sequence[int] | np.ndarray, read: Read = STATISTICS_ONLY) -> Rows:
        """Commit a chain of any length; reads the last row."""
        read = check_read(read, 1, self.vocab_size)
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
        start, end = pending.hides
        length = self.length - (end - start) + len(kept)
        if length > self.capacity:
            raise CapacityError(f"keeping {len(kept)} rows makes {length}, more than the capacity of {self.capacity}")
        self.tokens = np.concatenate([self.tokens[:start], pending.tokens[kept], self.tokens[end:]]).astype(np.int32)
        self._pending = None

    def truncate(self, length: int) -> None:
        """Forget committed tokens from `length` on, and all pending rows."""
        self.tokens = self.tokens[: check_integer("length", length, 0, self.length)]
        self._pending = None

    def fork(self) -> CallableSession:
        """A session of its own with the same committed tokens."""
        other = CallableSession(
            self._function, self.vocab_size, self.capacity, self.max_rows, self.mask_token, self.logit_shift
        )
        other.tokens = self.tokens
        return other

    def __repr__(self) -> str:
        waiting = f", {self.pending} rows pending" if self.pending else ""
        return f"<session over a function: {self.length} of {self.capacity} tokens{waiting}>"

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        given = self._function(tokens.copy())
        name, what = "the function's result", f"logits (n, {self.vocab_size})"
        found = any_array(name, given, np.float32, what)
        if found.dtype.kind not in "biufV":  # V: bfloat16 of other packages
            refuse(name, what, given)
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is an infinity, which is refused
                logits = np.ascontiguousarray(found, np.float32)
        except (TypeError, ValueError):
            refuse(name, what, given)
        check_array(name, logits, np.float32, (len(tokens), self.vocab_size))
        return logits

    def _result(self, logits: np.ndarray, read: Read, positions: np.ndarray, seen: list[np.ndarray]) -> Rows:
        if read.banned is not None:
            logits[:, read.banned] = -np.inf
        statistics = row_statistics(logits)
        tokens = draw(read, statistics, logits, positions, lambda row: seen[row], threads=1)
        log_probs = None
        if read.log_prob_of is not None:
            log_probs = logits[np.arange(len(logits)), read.log_prob_of] - statistics.log_sum_exp
        return Rows(statistics, tokens, log_probs, logits if read.logits else None)
