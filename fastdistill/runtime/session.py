"""A session: one sequence's cache, and the rows that are still pending.

Committed rows lie in slots 0 .. length - 1, in order.  Pending rows lie behind them until `keep` moves the chosen ones to
their place and forgets the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdistill.arguments import as_array, check_choice, check_integer, check_integers
from fastdistill.errors import ArgumentError, BusyError, CapacityError, UnsupportedError
from fastdistill.kernels.sample.sample import sample_workspace
from fastdistill.messages import listed, short
from fastdistill.runtime.forward_many import forward_many
from fastdistill.runtime.forward_pass import POSITION_LIMIT
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.pending import Pending, check_pair, nothing_pending, pending_over
from fastdistill.runtime.read import STATISTICS_ONLY, Read, Rows, check_read, common_prefix, read_rows
from fastdistill.runtime.session_file import SavedSession, write_session
from fastdistill.runtime.visibility import chain_runs, lineage_runs, node_runs

if TYPE_CHECKING:
    from fastdistill.runtime.network import Network

CACHES = ("f16", "f32")  # types of keys and values


@dataclass(frozen=True)
class Share:
    """One session's rows of a pass, and the state of the session once the pass has succeeded.

    session      whose rows these are
    tokens       int32 (m,)
    inputs       float32 (m, hidden_size), or None
    positions    int32 (m,)
    nodes        int32 (m,): which list of visible slots
    runs         int32 (runs, 2): (start, length) of visible slots
    run_offsets  int64 (lists + 1,): where each list begins in `runs`
    first_slot   of the cache, for row 0; the others follow
    reads        int32 (reads,): rows to read
    layers       the pass runs layers [start, end)
    read         what is asked of them
    pending      afterwards; None: the rows are committed
    streams      float32 (m, hidden_size): enters layers[0]; None where that is 0
    """

    session: Session
    tokens: np.ndarray
    inputs: np.ndarray | None
    positions: np.ndarray
    nodes: np.ndarray
    runs: np.ndarray
    run_offsets: np.ndarray
    first_slot: int
    reads: np.ndarray
    layers: tuple[int, int]
    read: Read
    pending: Pending | None
    streams: np.ndarray | None = None


class Session:
    """One sequence over a network; made by `Model.session`.  Belongs to one caller at a time (`BusyError`).

    network      what it runs
    capacity     most committed tokens
    limit        what errors add where the model itself has no more room
    max_rows     most rows of one forward
    vocab_size   columns of the logits
    taps         names of values that every forward gives
    length       committed tokens
    cache        keys and values of all layers
    executor     runs the passes
    causal       as of the plan
    mask_token   as of the plan
    logit_shift  as of the plan
    writer       whoever writes a text here: the decode loop asks whether it still is the one
    """

    def __init__(
        self, network: Network, capacity: int | None, max_rows: int, cache: str | None, taps: Iterable[str]
    ) -> None:
        plan = network.plan
        most = min(plan.max_positions, POSITION_LIMIT)
        try:
            self.capacity = check_integer("capacity", most if capacity is None else capacity, 1, most)
        except ArgumentError as error:
            raise ArgumentError(f"{error} ({most} is the model's {plan.positions_source})") from None
        self.limit = f" ({most} is the model's {plan.positions_source})" if self.capacity == most else ""
        self.max_rows = check_integer("max_rows", max_rows, 1, 1 << 16)
        if cache is not None:
            check_choice("cache", cache, CACHES)
        if isinstance(taps, (str, range)) or not isinstance(taps, (Sequence, Set)):
            raise ArgumentError(f"taps must be names of values, got {short(taps)}")
        self.taps = tuple(taps)
        for name in self.taps:
            if not isinstance(name, str) or name not in plan.taps:
                raise ArgumentError(f"tap {short(name)} is unknown; this model has: {listed(plan.taps)}")
        self.vocab_size = plan.vocab_size
        self.causal, self.mask_token, self.logit_shift = plan.causal, plan.mask_token, plan.logit_shift
        self.length = 0
        self.network = network
        self.cache = KVCache(
            plan, self.capacity + self.max_rows, cache or network.cache_dtype
        )  # pending rows lie behind
        self.executor = network.executor(self.max_rows, self.cache.slots, self.taps)
        self._positions = np.zeros(self.capacity, np.int32)
        self._tokens = np.full(self.capacity, -1, np.int32)
        self._text_length = 0  # leading rows that have seen the rows before them and no others
        self._pending: Pending | None = None
        self._workspace: np.ndarray | None = None
        self.writer: object = None
        self._holder: dict[str, object] = {}

    def __repr__(self) -> str:
        waiting = f", {self.pending} rows pending" if self.pending else ""
        return (
            f"<session of {self.network.plan.architecture}: {self.length} of {self.capacity} tokens{waiting}, "
            f"{self.cache.format} cache, forwards of at most {self.max_rows} rows>"
        )

    def __copy__(self) -> Session:
        raise UnsupportedError("a copy would share this session's cache: session.fork() makes one of its own")

    def __deepcopy__(self, _: Any) -> Session:
        return self.__copy__()

    def __reduce_ex__(self, _: Any) -> Any:
        raise UnsupportedError(
            "a session is not pickled: session.save(path) keeps it in a file, model.load_session(path) reads it"
        )

    @property
    def tokens(self) -> np.ndarray:
        """The committed tokens, int32 (length,); -1 where a row was given as `inputs`."""
        return self._tokens[: self.length].copy()

    @property
    def pending(self) -> int:
        """How many rows are pending."""
        return 0 if self._pending is None else self._pending.rows

    def forward(
        self,
        tokens: Sequence[int] | np.ndarray | None = None,
        *,
        inputs: Mapping[str, np.ndarray] | None = None,
        parents: Sequence[int] | None = None,
        nodes: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        replace: tuple[int, int] | None = None,
        rows: str | Sequence[int] = "all",
        layers: tuple[int, int] | None = None,
        read: Read = STATISTICS_ONLY,
        out: np.ndarray | None = None,
    ) -> Rows:
        """Run rows through the model.

        tokens     (m,) token ids; or `inputs={"embedding": float32 (m, hidden_size)}` in their place
        nodes      (m,) the node of each row: rows of one node see each other.  New nodes are numbered on from the pending
                   ones.  Default: one node a row
        parents    one entry a new node: a node it sees, with all that one sees; -1: the committed context alone.
                   Default: a chain
        positions  (m,) default: the depth of the row, never its flat index
        replace    (start, end): committed rows that these rows do not see, and whose place `keep` gives them
        rows       which rows to read: "all", "last" or indices
        layers     (a, b): run layers a .. b - 1 only.  From 0 the rows stay pending; (b, L) without tokens takes all
                   pending rows on from there.  What is read has passed the final norm and the head in any case
        read       what to give beside the statistics
        out        float32 (reads, vocab_size): receives the logits in place of the session's own buffer

        Rows given with `parents`, `nodes`, `replace` or `layers` are pending until `keep`; a plain chain is committed at once.

        raises  ArgumentError, CapacityError, BusyError; NotFiniteError (the session is then as it was before the call)
        """
        arguments = dict(
            tokens=tokens, inputs=inputs, parents=parents, nodes=nodes, positions=positions, replace=replace,
            rows=rows, layers=layers, read=read, out=out,
        )  # fmt: skip
        return forward_many([(self, arguments)])[0]

    def prefill(self, tokens: Sequence[int] | np.ndarray, read: Read = STATISTICS_ONLY) -> Rows:
        """Commit a chain of any length, in chunks of max_rows; reads the last row.

        raises  as `forward`; ArgumentError and CapacityError before anything has run
        """
        ids = self._token_array(tokens)
        check_read(read, 1, self.vocab_size)
        if self.length + len(ids) > self.capacity:
            raise CapacityError(
                f"{len(ids)} tokens after {self.length} do not fit a capacity of {self.capacity}{self.limit}"
            )
        last = (len(ids) - 1) // self.max_rows * self.max_rows
        for start in range(0, last, self.max_rows):
            self.forward(ids[start : start + self.max_rows], rows=())
        return self.forward(ids[last:], rows="last", read=read)

    def keep(self, indices: Sequence[int]) -> None:
        """Commit these pending rows, in this order: a path from the root; forget the others.

        raises  ArgumentError when a row's ancestors are not kept before it, or it has not run through all layers
        """
        with self.entered():
            pending = self._pending or nothing_pending((self.length, self.length), self.network.plan.num_layers)
            chosen = check_integers("keep's indices", indices, 0, pending.rows - 1, empty=True)
            kept = chosen.tolist()
            pending.check_path(kept)
            if kept and pending.layers != self.network.plan.num_layers:
                raise ArgumentError(
                    f"pending rows have run through {pending.layers} of {self.network.plan.num_layers} layers only"
                )
            start, end = pending.hides
            length = self.length - (end - start) + len(kept)
            if length > self.capacity:
                raise CapacityError(
                    f"keeping {len(kept)} rows makes {length}, more than the capacity of {self.capacity}{self.limit}"
                )
            old, text_length = self.length, min(self._text_length, start)
            if end == old and start <= self._text_length and pending.is_text(kept):
                text_length += len(kept)  # rows that stay behind are seen, and saw what is gone: then it is no text
            self.length, self._pending, self._text_length = start, None, text_length  # an interrupt leaves what is sure
            if kept or end > start:
                after = slice(end, old)
                self.cache.move(np.concatenate([old + chosen, np.arange(end, old)]), start)
                self._tokens[start:length] = np.concatenate([pending.tokens[chosen], self._tokens[after]])
                self._positions[start:length] = np.concatenate([pending.positions[chosen], self._positions[after]])
            self.length = length

    def truncate(self, length: int) -> None:
        """Forget committed rows from `length` on, and all pending ones."""
        with self.entered():
            self.length = check_integer("length", length, 0, self.length)
            self._text_length = min(self._text_length, self.length)
            self._pending = None

    def common_prefix(self, tokens: np.ndarray) -> int:
        """How many of these tokens, from the first, are committed as a text is: in place, and each after reading the others."""
        in_place = common_prefix(self._positions[: self._text_length], np.arange(self._text_length))
        return common_prefix(self._tokens[:in_place], tokens)

    def fork(self) -> Session:
        """A session of its own with the same committed rows; pending rows stay behind."""
        with self.entered():
            other = Session(self.network, self.capacity, self.max_rows, self.cache.format, self.taps)
            other.cache.copy_from(self.cache, self.length)
            other._tokens[:] = self._tokens
            other._positions[:] = self._positions
            other.length, other._text_length = self.length, self._text_length
            return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep the committed rows in a file, for `Model.load_session`; pending rows stay behind.

        The file is there whole or not at all; one that was there is replaced.

        raises  BusyError; ArgumentError for what is no path; CheckpointError where it cannot be written
        """
        with self.entered():
            keys, values = self.cache.read(slice(None), np.arange(self.length))
            head_dim = self.network.plan.head_dim
            saved = SavedSession(
                self.tokens,
                self._positions[: self.length],
                self._text_length,
                keys[..., :head_dim],
                values[..., :head_dim],
            )
            write_session(path, saved, self.network.fingerprint)

    def restore(self, saved: SavedSession) -> None:
        """Begin with the rows of a file.  Raises CapacityError."""
        with self.entered():
            n = len(saved.tokens)
            if n > self.capacity:
                raise CapacityError(
                    f"the session that was saved holds {n} tokens, more than a capacity of {self.capacity}"
                )
            self.cache.write(slice(None), np.arange(n), saved.keys, saved.values)
            self._tokens[:n], self._positions[:n] = saved.tokens, saved.positions
            self.length, self._text_length, self._pending = n, saved.text_length, None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Hold the session; a second caller gets BusyError."""
        me = object()
        try:  # one step takes the session and says who did: an interrupt leaves no lock behind, wherever it comes
            if self._holder.setdefault("caller", me) is not me:
                raise BusyError("this session is in use by another caller; a session belongs to one at a time")
            yield
        finally:
            if self._holder.get("caller") is me:
                del self._holder["caller"]

    # ---- for forward_many ----

    def workspace(self) -> np.ndarray:
        """What `sample` works in; made at the first draw."""
        if self._workspace is None:
            try:
                self._workspace = sample_workspace(self.max_rows, self.vocab_size, self.network.threads)
            except MemoryError:
                raise CapacityError(
                    f"no memory to draw one of {self.vocab_size} tokens on {self.network.threads} threads"
                ) from None
        return self._workspace

    def prepare(
        self,
        tokens: Any = None,
        inputs: Any = None,
        parents: Any = None,
        nodes: Any = None,
        positions: Any = None,
        replace: Any = None,
        rows: Any = "all",
        layers: Any = None,
        read: Read = STATISTICS_ONLY,
    ) -> Share:
        """Check the arguments of `forward` and lay out its rows; changes nothing."""
        first, end = self._layers(layers)
        if first > 0:
            if any(argument is not None for argument in (tokens, inputs, parents, nodes, positions, replace)):
                raise ArgumentError("layers that do not start at 0 take the pending rows on: give no rows with them")
            return self._resumed(rows, first, end, read)
        ids, floats = self._rows_given(tokens, inputs)
        m = len(ids)
        if m > self.max_rows:
            raise CapacityError(
                f"{m} rows are more than max_rows = {self.max_rows}; prefill takes chains of any length"
            )
        if positions is not None:
            positions = check_integers("positions", positions, 0, POSITION_LIMIT - 1)
            if len(positions) != m:
                raise ArgumentError(f"positions must have one entry a row, {m}, got {len(positions)}")
        if parents is None and nodes is None and replace is None and layers is None:
            return self._chain(ids, floats, positions, rows, (first, end), read)
        pending = pending_over(self._pending, replace, self.length, end)
        if pending.layers != end:
            raise ArgumentError(f"layers end at {end}, but the pending rows have run through {pending.layers}")
        places = self.capacity + self.max_rows
        if self.length + pending.rows + m > places:
            raise CapacityError(
                f"{m} rows beside {pending.rows} pending and {self.length} committed ones are more than the session's {places} places"
            )
        old = pending.rows
        base = int(self._positions[pending.hides[0] - 1]) + 1 if pending.hides[0] else 0
        after = pending.extended(ids, nodes, parents, positions, base)
        if after.positions.max() >= POSITION_LIMIT:
            raise CapacityError(f"position {after.positions.max()} is beyond the limit of {POSITION_LIMIT}")
        new_nodes = range(len(pending.parents), len(after.parents))
        runs, offsets = self._node_runs(after, new_nodes)
        lists = (after.nodes[old:] - len(pending.parents)).astype(np.int32)
        reads = read_rows(rows, m)
        return Share(
            self,
            ids,
            floats,
            after.positions[old:],
            lists,
            runs,
            offsets,
            self.length + old,
            reads,
            (first, end),
            read,
            after,
        )

    def finish(self, share: Share, stream: np.ndarray) -> None:
        """Take on the state that a pass has led to; `stream` left its last layer."""
        if share.pending is None:
            rows = slice(self.length, self.length + len(share.tokens))
            self._tokens[rows], self._positions[rows] = share.tokens, share.positions
            self._text_length = rows.stop if self._text_length == self.length else self._text_length
            self.length = rows.stop
        elif share.layers[1] == self.network.plan.num_layers:
            self._pending = replace(share.pending, streams=None)
        else:
            before = () if self._pending is None or share.layers[0] > 0 else (self._pending.streams,)
            self._pending = replace(share.pending, streams=np.concatenate([*before, stream]))

    def seen_tokens(self, share: Share, row: int) -> np.ndarray:
        """Tokens of the context that a row sees and of the row itself: what a repetition penalty counts."""
        if share.pending is None:
            seen = np.concatenate([self._tokens[: self.length], share.tokens[: row + 1]])
        else:
            pending, (start, end) = share.pending, share.pending.hides
            rows = pending.seen_by(int(pending.nodes[pending.rows - len(share.tokens) + row]))
            seen = np.concatenate([self._tokens[:start], self._tokens[end : self.length], pending.tokens[rows]])
        return seen[seen >= 0]

    def _chain(
        self,
        ids: np.ndarray,
        floats: np.ndarray | None,
        positions: np.ndarray | None,
        rows: Any,
        layers: tuple[int, int],
        read: Read,
    ) -> Share:
        m = len(ids)
        if self._pending is not None:
            raise ArgumentError(f"{self.pending} rows are pending: keep some (or none) of them first, or name parents")
        if self.length + m > self.capacity:
            raise CapacityError(f"{m} rows after {self.length} do not fit a capacity of {self.capacity}{self.limit}")
        base = int(self._positions[self.length - 1]) + 1 if self.length else 0
        if positions is None:
            positions = np.arange(base, base + m, dtype=np.int32)
            if base + m > POSITION_LIMIT:
                raise CapacityError(f"position {base + m - 1} is beyond the limit of {POSITION_LIMIT}")
        order = np.concatenate([self._positions[: self.length], positions])
        if (order[1:] >= order[:-1]).all():
            runs, offsets = chain_runs(self.length, m)
        else:
            slots = np.arange(self.length, self.length + m)
            extras = [(slots[: i + 1], positions[: i + 1]) for i in range(m)]
            runs, offsets = node_runs(np.arange(self.length), self._positions[: self.length], extras, self.length)
        lists = np.arange(m, dtype=np.int32)
        return Share(
            self, ids, floats, positions, lists, runs, offsets, self.length, read_rows(rows, m), layers, read, None
        )

    def _resumed(self, rows: Any, first: int, end: int, read: Read) -> Share:
        pending = self._pending
        if pending is None or pending.layers != first:
            found = "no rows are pending" if pending is None else f"the pending rows have run through {pending.layers}"
            raise ArgumentError(f"layers start at {first}, but {found}")
        if pending.rows > self.max_rows:
            raise CapacityError(f"{pending.rows} pending rows are more than max_rows = {self.max_rows}")
        runs, offsets = self._node_runs(pending, range(len(pending.parents)))
        return Share(
            self, pending.tokens, None, pending.positions, pending.nodes, runs, offsets, self.length, read_rows(rows, pending.rows),
            (first, end), read, replace(pending, layers=end), pending.streams,
        )  # fmt: skip

    def _node_runs(self, pending: Pending, nodes: range) -> tuple[np.ndarray, np.ndarray]:
        start, end = pending.hides
        before = self._positions[:start]
        in_order = pending.ascending and end == self.length and (before[1:] >= before[:-1]).all()
        if in_order and (start == 0 or pending.positions.min() >= before[-1]):
            return lineage_runs(start, self.length, [pending.seen[node] for node in nodes])
        context = np.concatenate([np.arange(start), np.arange(end, self.length)])
        seen = [pending.seen_by(node) for node in nodes]
        extras = [(self.length + rows, pending.positions[rows]) for rows in seen]
        return node_runs(context, self._positions[context], extras, start)

    def _layers(self, given: tuple[int, int] | None) -> tuple[int, int]:
        count = self.network.plan.num_layers
        if given is None:
            return 0, count
        begin, end = check_pair("layers", "(first, end)", given)
        first = check_integer("layers' first", begin, 0, count - 1)
        return first, check_integer("layers' end", end, first + 1, count)

    def _rows_given(self, tokens: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray | None]:
        if (tokens is None) == (inputs is None):
            raise ArgumentError("give either tokens or inputs")
        if inputs is None:
            return self._token_array(tokens), None
        if not isinstance(inputs, Mapping) or set(inputs) != {"embedding"}:
            raise ArgumentError(f"inputs must be {{'embedding': array}}, got {short(inputs)}")
        rows = as_array("inputs['embedding']", inputs["embedding"], np.float32, ("rows", self.network.plan.hidden_size))
        if len(rows) == 0:
            raise ArgumentError("inputs['embedding'] must have at least one row")
        return np.full(len(rows), -1, np.int32), rows

    def _token_array(self, tokens: Any) -> np.ndarray:
        return check_integers("tokens", tokens, 0, self.vocab_size - 1)
