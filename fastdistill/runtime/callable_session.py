"""A session over any function from tokens to logits: decoders run on models that live elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastdistill.arguments import any_array, check_array, check_callable, check_integer, refuse
from fastdistill.errors import UnsupportedError
from fastdistill.kernels.forward.row_statistics import row_statistics
from fastdistill.messages import listed
from fastdistill.runtime.context import Context
from fastdistill.runtime.forward import Forward, SessionLike
from fastdistill.runtime.read import Read, Rows, check_read, draw
from fastdistill.runtime.share import Share


def from_callable(
    function: Callable[[np.ndarray], np.ndarray],
    vocab_size: int,
    capacity: int = 1 << 20,
    max_rows: int = 128,
    mask_token: int | None = None,
    logit_shift: int = 0,
) -> CallableSession:
    """Make a session of a function.

    Parameters
    ----------
    function : Callable[[np.ndarray], np.ndarray]
        tokens int32 (n,) -> logits (n, vocab_size), row i for the token after tokens[: i + 1]; called with the whole
        context each time, so a token's logits depend on those before it alone as far as the function's do
    vocab_size : int
        columns of the logits
    capacity : int, optional
        most committed tokens
    max_rows : int, default 128
        most rows of one forward
    mask_token : int, optional
        of a masked diffusion model: row i of the logits is for tokens[i] then, and may look at all tokens
    logit_shift : int, default 0
        1: or for tokens[i + 1], as Dream's

    Raises
    ------
    ArgumentError
        when the function returns anything else

    Examples
    --------
    >>> table = np.eye(10, k=1, dtype=np.float32)  # after token t comes t + 1
    >>> session = fd.from_callable(lambda ids: table[ids], vocab_size=10)
    >>> session.forward([3, 4, 5]).statistics.argmax.tolist()
    [4, 5, 6]
    """
    return CallableSession(function, vocab_size, capacity, max_rows, mask_token, logit_shift)


class CallableSession(SessionLike):
    """The session protocol over a function, which is called once a node that is read from, with all that the node sees.

    Attributes
    ----------
    tokens : int32 (length,)
        the committed ones
    vocab_size : int
        columns of the logits
    capacity : int
        most committed tokens
    max_rows : int
        most rows of one forward
    mask_token : int | None
        what stands where a masked diffusion model is to write; None: it is none
    causal : bool
        without a mask token: rows see what is before them
    logit_shift : int
        1: row i of a masked diffusion model predicts position i + 1, not its own
    writer : object
        as in Session
    context : Context
        its rows
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
        self.context = Context(self.capacity, self.max_rows, self.vocab_size, num_layers=1, hidden_size=0)
        self.writer: object = None

    @property
    def length(self) -> int:
        """Committed tokens."""
        return self.context.length

    @property
    def tokens(self) -> np.ndarray:
        """The committed tokens, int32 (length,)."""
        return self.context.tokens[: self.length].copy()

    @property
    def pending(self) -> int:
        """How many rows are pending."""
        return self.context.waiting

    def run(self, asked: Forward) -> Rows:
        """As Session.run.

        A function counts positions by its tokens: rows stand where those that they replace stood, in the order of their
        node.

        Raises
        ------
        UnsupportedError
            for what a plain function cannot do (inputs, positions, layers, out, hidden)
        """
        refused = [name for name in ("inputs", "positions", "layers", "out") if getattr(asked, name) is not None]
        refused += ["ahead"] if asked.goes_on else []
        read = check_read(asked.read, None, self.vocab_size)
        if refused or read.hidden:
            raise UnsupportedError(f"a session over a function cannot give or take {listed(refused or ['hidden'])}")
        share = self.context.lay_out(asked)
        views = [self._view(share, row) for row in share.reads.tolist()]
        rows_of: dict[bytes, list[int]] = {}  # rows that see the same: the function is called once for them
        for row, (text, *_) in enumerate(views):
            rows_of.setdefault(text.tobytes(), []).append(row)
        logits = np.empty((len(views), self.vocab_size), np.float32)
        for rows in rows_of.values():
            logits[rows] = self._logits(views[rows[0]][0])[[views[row][1] for row in rows]]
        result = self._result(logits, share.read, share.positions[share.reads], [seen for *_, seen in views])
        self.context.finish(share, None)
        return result

    def keep(self, indices: Sequence[int] | range | np.ndarray) -> None:
        kept = self.context.kept(indices)
        self.context.cut(kept.start)
        self.context.take(kept)
        self.context.positions[: self.length] = np.arange(self.length)

    def truncate(self, length: int) -> None:
        self.context.cut(check_integer("length", length, 0, self.length))

    def common_prefix(self, tokens: np.ndarray) -> int:
        return self.context.common_prefix(tokens)

    def fork(self) -> CallableSession:
        """A session of its own with the same committed tokens."""
        other = CallableSession(
            self._function, self.vocab_size, self.capacity, self.max_rows, self.mask_token, self.logit_shift
        )
        other.context.adopt(self.context, self.length)
        return other

    def __repr__(self) -> str:
        waiting = f", {self.pending} rows pending" if self.pending else ""
        return f"<session over a function: {self.length} of {self.capacity} tokens{waiting}>"

    def _view(self, share: Share, row: int) -> tuple[np.ndarray, int, np.ndarray]:
        """Of a row: the text to give to the function, which of its logits are the row's, and the tokens that the row sees."""
        committed, length = self.context.tokens, self.length
        if share.pending is None:
            text = np.concatenate([committed[:length], share.tokens])
            seen = text[: length + row + 1]
            return (text if self.causal else seen), length + row, seen  # rows of a chain do not see those after them
        pending, (start, end) = share.pending, share.pending.hides
        number = pending.rows - len(share.tokens) + row
        rows = pending.seen_by(int(pending.nodes[number]))
        text = np.concatenate([committed[:start], pending.tokens[rows], committed[end:length]])
        return text, start + int(np.flatnonzero(rows == number)[0]), text

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
        tokens = draw(read, statistics, logits, lambda: positions, lambda row: seen[row], threads=1)
        log_probs = None
        if read.log_prob_of is not None:
            log_probs = logits[np.arange(len(logits)), read.log_prob_of] - statistics.log_sum_exp
        return Rows(statistics, tokens, log_probs, logits if read.logits else None)
