"""Rows of one sequence without their keys and values: those committed, those pending, and who of the next ones sees whom.

Committed rows lie in slots 0 .. length - 1, in order. Pending rows lie behind them until `keep` moves the chosen ones
to their place and forgets the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_array, check_instance, check_integer, check_integers
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.forward_pass import POSITION_LIMIT
from fastdistill.runtime.pending import Pending, check_pair, nothing_pending, pending_over
from fastdistill.runtime.read import check_read, common_prefix, draws_alone, read_rows
from fastdistill.runtime.share import Share
from fastdistill.runtime.visibility import chain_runs, lineage_runs, node_runs


class Kept(NamedTuple):
    """What `keep` makes of the rows from `start` on.

    Attributes
    ----------
    start : int
        the first row that changes
    sources : int (n,)
        slots of the rows that are to lie at start, start + 1, ...
    tokens : int32 (n,)
        theirs
    positions : int32 (n,)
    text_length : int
        leading rows that have seen the rows before them and no others
    """

    start: int
    sources: np.ndarray
    tokens: np.ndarray
    positions: np.ndarray
    text_length: int


class Context:
    """The rows of one sequence.

    Attributes
    ----------
    capacity : int
        most committed rows
    limit : str
        what errors add where the model itself has no more room
    max_rows : int
        most rows of one forward
    vocab_size : int
        columns of the logits
    num_layers : int
        that rows run through
    hidden_size : int
        floats a row between layers
    length : int
        committed rows
    text_length : int
        leading ones that have seen the rows before them and no others
    tokens : int32 (capacity,)
        of the committed rows; -1 where a row was given as `inputs`
    positions : int32 (capacity,)
        theirs
    runs_ahead : bool
        whether its rows may go on by themselves
    ascending : bool
        whether the positions of the committed rows never fall
    pending : Pending | None
        rows that are not committed yet
    """

    def __init__(
        self, capacity: int, max_rows: int, vocab_size: int, num_layers: int, hidden_size: int, limit: str = ""
    ) -> None:
        self.capacity, self.max_rows, self.limit = capacity, max_rows, limit
        self.vocab_size, self.num_layers, self.hidden_size = vocab_size, num_layers, hidden_size
        self.length = self.text_length = 0
        self.tokens, self.positions = np.empty((2, capacity), np.int32)
        self.ascending, self.runs_ahead = True, False
        self.pending: Pending | None = None

    @property
    def waiting(self) -> int:
        """How many rows are pending."""
        return 0 if self.pending is None else self.pending.rows

    # ---- a forward ----

    def lay_out(self, asked: Forward) -> Share:
        """Check what a forward is asked for and lay out its rows; changes nothing.

        Raises
        ------
        ArgumentError
        CapacityError
        """
        share = self._rows(asked)
        share.read = check_read(share.read, len(share.reads), self.vocab_size)
        if asked.goes_on:
            self._check_ahead(asked, share)
        elif asked.then is not None:
            raise ArgumentError("then needs ahead: how many rows more there may be")
        if asked.out is not None:
            if not share.read.logits:
                raise ArgumentError("out receives logits: pass read=Read(logits=True) with it")
            check_array("out", asked.out, np.float32, (len(share.reads), self.vocab_size), written=True)
            share.out = asked.out
        return share

    def finish(self, share: Share, stream: np.ndarray | None) -> None:
        """Take on the state that a pass has led to; `stream`, an array of its own, left its last layer."""
        if share.pending is None:
            rows = slice(self.length, self.length + len(share.tokens))
            self.tokens[rows], self.positions[rows] = share.tokens, share.positions
            self.ascending = self.ascending and share.in_order
            self.text_length = rows.stop if self.text_length == self.length else self.text_length
            self.length = rows.stop
        elif share.layers[1] == self.num_layers:
            self.pending = replace(share.pending, streams=None)
        else:
            before = () if self.pending is None or share.layers[0] > 0 else (self.pending.streams,)
            self.pending = replace(share.pending, streams=np.concatenate([*before, stream]))

    def seen_tokens(self, share: Share, row: int) -> np.ndarray:
        """Tokens of the context that a row sees and of the row itself, in the order of the text: what penalties count."""
        if share.pending is None:
            seen = np.concatenate([self.tokens[: self.length], share.tokens[: row + 1]])
        else:
            pending, (start, end) = share.pending, share.pending.hides
            rows = pending.seen_by(int(pending.nodes[pending.rows - len(share.tokens) + row]))
            seen = np.concatenate([self.tokens[:start], pending.tokens[rows], self.tokens[end : self.length]])
        return seen[seen >= 0]

    def next_position(self, length: int) -> int:
        """Where a text goes on after its first `length` rows."""
        return int(self.positions[length - 1]) + 1 if length else 0

    def reach(self, share: Share) -> tuple[int, int]:
        """How many rows stay, whatever becomes of a share, and the lowest position from which they are seen: by its rows, or after them."""
        if share.pending is None:
            start, positions = self.length, share.positions
        else:
            start, positions = share.pending.hides[0], share.pending.positions
        return start, min(int(positions.min()), self.next_position(start), self.next_position(self.length))

    # ---- between forwards ----

    def kept(self, indices: Any) -> Kept:
        """What keeping these pending rows leads to; changes nothing.

        Raises
        ------
        ArgumentError
        CapacityError
        """
        pending = self.pending or nothing_pending((self.length, self.length), self.num_layers)
        chosen = check_integers("keep's indices", indices, 0, pending.rows - 1, empty=True)
        rows = chosen.tolist()
        pending.check_path(rows)
        if rows and pending.layers != self.num_layers:
            raise ArgumentError(f"pending rows have run through {pending.layers} of {self.num_layers} layers only")
        (start, end), old = pending.hides, self.length
        length = old - (end - start) + len(rows)
        if length > self.capacity:
            raise CapacityError(
                f"keeping {len(rows)} rows makes {length}, more than the capacity of {self.capacity}{self.limit}"
            )
        text_length = min(self.text_length, start)
        if end == old and start <= self.text_length and pending.is_text(rows):
            text_length += len(rows)  # rows that stay behind are seen, and saw what is gone: then it is no text
        if not rows and end == start:  # nothing moves
            none = np.empty(0, np.int32)
            return Kept(length, none, none, none, text_length)
        return Kept(
            start,
            np.concatenate([old + chosen, np.arange(end, old)]),
            np.concatenate([pending.tokens[chosen], self.tokens[end:old]]),
            np.concatenate([pending.positions[chosen], self.positions[end:old]]),
            text_length,
        )

    def cut(self, length: int) -> None:
        """Forget committed rows from `length` on, and all pending ones."""
        self.pending, self.length, self.text_length = None, length, min(self.text_length, length)
        self.ascending = self.ascending or self._ascends(0, length)

    def take(self, kept: Kept) -> None:
        """Have the rows that `keep` leaves, where `cut` has made room for them."""
        rows = slice(kept.start, kept.start + len(kept.tokens))
        self.tokens[rows], self.positions[rows] = kept.tokens, kept.positions
        self.ascending = self.ascending and self._ascends(kept.start - 1, rows.stop)
        self.length, self.text_length = rows.stop, kept.text_length

    def adopt(self, other: Context, length: int) -> None:
        """Have the first `length` committed rows of another context, in place of any."""
        self.tokens[:length], self.positions[:length] = other.tokens[:length], other.positions[:length]
        self.length, self.text_length, self.pending = length, min(other.text_length, length), None
        self.ascending = other.ascending or self._ascends(0, length)

    def common_prefix(self, tokens: Any) -> int:
        """How many of these tokens, from the first, are committed as a text is: in place, and each after reading the others."""
        in_place = common_prefix(self.positions[: self.text_length], np.arange(self.text_length))
        return common_prefix(self.tokens[:in_place], tokens)

    # ---- how rows are laid out ----

    def _rows(self, asked: Forward) -> Share:
        first, end = (0, self.num_layers) if asked.layers is None else self._layers(asked.layers)
        if first > 0:
            given = (asked.tokens, asked.inputs, asked.parents, asked.nodes, asked.positions, asked.replace)
            if any(argument is not None for argument in given):
                raise ArgumentError("layers that do not start at 0 take the pending rows on: give no rows with them")
            return self._resumed(asked, first, end)
        ids, floats = self._rows_given(asked.tokens, asked.inputs)
        m = len(ids)
        if m > self.max_rows:
            raise CapacityError(
                f"{m} rows are more than max_rows = {self.max_rows}; prefill takes chains of any length"
            )
        positions = None
        if asked.positions is not None:
            positions = check_integers("positions", asked.positions, 0, POSITION_LIMIT - 1)
            if len(positions) != m:
                raise ArgumentError(f"positions must have one entry a row, {m}, got {len(positions)}")
        if asked.is_chain:
            return self._chain(asked, ids, floats, positions)
        pending = pending_over(self.pending, asked.replace, self.length, end)
        if pending.layers != end:
            raise ArgumentError(f"layers end at {end}, but the pending rows have run through {pending.layers}")
        places = self.capacity + self.max_rows
        if self.length + pending.rows + m > places:
            raise CapacityError(
                f"{m} rows beside {pending.rows} pending and {self.length} committed ones are more than the session's {places} places"
            )
        old = pending.rows
        base = self.next_position(pending.hides[0])
        after = pending.extended(ids, asked.nodes, asked.parents, positions, base)
        if after.positions.max() >= POSITION_LIMIT:
            raise CapacityError(f"position {after.positions.max()} is beyond the limit of {POSITION_LIMIT}")
        runs, offsets = self._node_runs(after, range(len(pending.parents), len(after.parents)))
        lists = (after.nodes[old:] - len(pending.parents)).astype(np.int32)
        return Share(
            ids, floats, after.positions[old:], lists, runs, offsets, self.length + old, read_rows(asked.rows, m),
            (first, end), asked.read, after,
        )  # fmt: skip

    def _chain(self, asked: Forward, ids: np.ndarray, floats: np.ndarray | None, positions: np.ndarray | None) -> Share:
        m, length = len(ids), self.length
        if self.pending is not None:
            raise ArgumentError(f"{self.waiting} rows are pending: keep some (or none) of them first, or name parents")
        if length + m > self.capacity:
            raise CapacityError(f"{m} rows after {length} do not fit a capacity of {self.capacity}{self.limit}")
        base = self.next_position(length)
        if positions is None:
            positions = np.arange(base, base + m, dtype=np.int32)
            if base + m > POSITION_LIMIT:
                raise CapacityError(f"position {base + m - 1} is beyond the limit of {POSITION_LIMIT}")
        in_order = asked.positions is None or bool((np.diff(positions, prepend=base - 1) >= 0).all())
        if self.ascending and in_order:
            runs, offsets = chain_runs(length, m)
        else:
            slots = np.arange(length, length + m)
            extras = [(slots[: i + 1], positions[: i + 1]) for i in range(m)]
            runs, offsets = node_runs(np.arange(length), self.positions[:length], extras, length)
        return Share(
            ids, floats, positions, np.arange(m, dtype=np.int32), runs, offsets, length, read_rows(asked.rows, m),
            (0, self.num_layers), asked.read, None, in_order=in_order,
        )  # fmt: skip

    def _check_ahead(self, asked: Forward, share: Share) -> None:
        if not self.runs_ahead:
            raise UnsupportedError(
                "this session does not run ahead: only the native executor does, of a model with a head"
            )
        ahead = check_integer("ahead", asked.ahead, 0, POSITION_LIMIT)
        check_instance("until", asked.until, frozenset)
        read, rows = share.read, len(share.tokens)
        plain = not (read.logits or read.log_prob_of is not None) and draws_alone(read)
        chain = share.pending is None and share.inputs is None and rows == len(share.reads)
        if asked.then is None and (not (plain and chain) or rows != 1 or read.hidden):
            raise ArgumentError(
                "ahead goes on from a chain of one token that is read and that the head draws the next one of, and reads no more"
            )
        if asked.then is not None and not (plain and chain and callable(asked.then)):
            raise ArgumentError(
                "then is a function, and goes on from a chain whose rows are all read, of each of which the head draws the next token"
            )
        room = self.capacity - self.length - rows
        consecutive = rows == 1 or bool((np.diff(share.positions) == 1).all())  # as rows behind them are
        if share.in_order and self.ascending and consecutive:  # else who sees whom is no single run
            share.ahead = min(ahead, room, POSITION_LIMIT - 1 - int(share.positions[-1]))
            share.until, share.then = asked.until, asked.then if share.ahead > 0 else None

    def _resumed(self, asked: Forward, first: int, end: int) -> Share:
        pending = self.pending
        if pending is None or pending.layers != first:
            found = "no rows are pending" if pending is None else f"the pending rows have run through {pending.layers}"
            raise ArgumentError(f"layers start at {first}, but {found}")
        if pending.rows > self.max_rows:
            raise CapacityError(f"{pending.rows} pending rows are more than max_rows = {self.max_rows}")
        runs, offsets = self._node_runs(pending, range(len(pending.parents)))
        return Share(
            pending.tokens, None, pending.positions, pending.nodes, runs, offsets, self.length,
            read_rows(asked.rows, pending.rows), (first, end), asked.read, replace(pending, layers=end), pending.streams,
        )  # fmt: skip

    def _node_runs(self, pending: Pending, nodes: range) -> tuple[np.ndarray, np.ndarray]:
        start, end = pending.hides
        in_order = pending.ascending and end == self.length and (self.ascending or self._ascends(0, start))
        if in_order and (start == 0 or pending.positions.min() >= self.positions[start - 1]):
            return lineage_runs(start, self.length, [pending.seen[node] for node in nodes])
        context = np.concatenate([np.arange(start), np.arange(end, self.length)])
        seen = [pending.seen_by(node) for node in nodes]
        extras = [(self.length + rows, pending.positions[rows]) for rows in seen]
        return node_runs(context, self.positions[context], extras, start)

    def _layers(self, given: Any) -> tuple[int, int]:
        begin, end = check_pair("layers", "(first, end)", given)
        first = check_integer("layers' first", begin, 0, self.num_layers - 1)
        return first, check_integer("layers' end", end, first + 1, self.num_layers)

    def _rows_given(self, tokens: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray | None]:
        if (tokens is None) == (inputs is None):
            raise ArgumentError("give either tokens or inputs")
        if inputs is None:
            return check_integers("tokens", tokens, 0, self.vocab_size - 1), None
        if not isinstance(inputs, Mapping) or set(inputs) != {"embedding"}:
            raise ArgumentError(f"inputs must be {{'embedding': array}}, got {short(inputs)}")
        rows = as_array("inputs['embedding']", inputs["embedding"], np.float32, ("rows", self.hidden_size))
        if len(rows) == 0:
            raise ArgumentError("inputs['embedding'] must have at least one row")
        return np.full(len(rows), -1, np.int32), rows

    def _ascends(self, start: int, end: int) -> bool:
        """Whether positions never fall within rows start .. end - 1."""
        positions = self.positions[max(start, 0) : end]
        return bool((positions[1:] >= positions[:-1]).all())
