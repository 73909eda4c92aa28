"""One forward pass as both executors see it: the rows, where they lie, and who sees whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.messages import listed, short
from fastdistill.models.plan import Plan
from fastdistill.ops import OWN
from fastdistill.runtime.forward import Then
from fastdistill.runtime.kv_cache import KVCache

POSITION_LIMIT = 1 << 20  # csrc/kernels/forward/rotary.c reduces angles exactly up to here


@dataclass
class KeySet:
    """Keys and values of one or several sequences, and what the rows of a pass see of them.

    A node's visible slots in position order are runs of (start, length): those of node g are
    runs[run_offsets[g] : run_offsets[g + 1]].

    Attributes
    ----------
    slots : int32 (rows,)
        where the row's keys and values go in its sequence's cache, where it stores some
    nodes : int32 (rows,)
        which list of visible slots
    runs : int32 (runs, 2)
        see above
    run_offsets : int64 (nodes + 1,)
    caches : list[KVCache]
        one a sequence
    """

    slots: np.ndarray
    nodes: np.ndarray
    runs: np.ndarray
    run_offsets: np.ndarray
    caches: list[KVCache]

    @property
    def key_counts(self) -> np.ndarray:
        """How many slots each node sees, int64 (nodes,)."""
        if len(self.runs) == len(self.run_offsets) - 1:  # a run each
            return self.runs[:, 1].astype(np.int64)
        return np.add.reduceat(self.runs[:, 1].astype(np.int64), self.run_offsets[:-1].astype(np.intp))

    def visible(self, node: int) -> np.ndarray:
        """Slots that a node sees, in position order."""
        runs = self.runs[self.run_offsets[node] : self.run_offsets[node + 1]]
        return np.concatenate([np.arange(start, start + length) for start, length in runs])


@dataclass
class ForwardPass(KeySet):
    """Rows of one or several sequences, with their own set of keys and values.

    Attributes
    ----------
    slots : int32 (rows,)
        where the row's keys and values go in that cache
    nodes : int32 (rows,)
        which list of visible slots
    runs : int32 (runs, 2)
        see `KeySet`
    run_offsets : int64 (nodes + 1,)
    caches : list[KVCache]
        one a sequence
    tokens : int32 (rows,) or (columns, rows) or None
        -1: none. None where `inputs` stand in place of all of them
    inputs : float32 (rows, hidden_size) or None
        in place of the embedding of tokens
    positions : int32 (rows,)
    sequences : int32 (rows,)
        which cache
    read_rows : int32 (reads,)
        rows that go through the head
    wanted_tokens : int32 (reads,) or None
        whose log probabilities are asked for
    banned : int32 (tokens,) or None
        those whose logits are -inf, row by row; None: none
    bans : int64 (reads, 2) or None
        those of read row i, ascending, are banned[bans[i, 0] : bans[i, 1]]
    want_logits : bool
        give the logits too
    want_outputs : bool
        give the plan's other outputs too
    draws : DRAW (reads,) or None
        what the head draws with; None: it does not
    first_layer : int
        the first that runs; 0: the embedding too
    end_layer : int
        the first that does not; the head reads what the one before it gives
    stream : float32 (rows, hidden_size) or None
        enters first_layer, where that is not 0
    ahead : int
        of one row: how many more to run, each with the token drawn before it,
    until : frozenset[int]
        and the tokens that end that
    then : Then | None
        or of a chain of one sequence: says how to go on, with at most `ahead` rows more
    segments : tuple[str, ...]
        of the plan, to run in place of layers and what is before and behind them; (): these
    others : Mapping[str, KeySet] | None
        key sets beside the rows' own, by name; None: none
    phase : str
        of a profile, that it is counted in; "": prefill or decode
    """

    tokens: np.ndarray | None
    inputs: np.ndarray | None
    positions: np.ndarray
    sequences: np.ndarray
    read_rows: np.ndarray
    wanted_tokens: np.ndarray | None = None
    banned: np.ndarray | None = None
    bans: np.ndarray | None = None
    want_logits: bool = False
    want_outputs: bool = False
    draws: np.ndarray | None = None
    first_layer: int = 0
    end_layer: int = 0
    stream: np.ndarray | None = None
    ahead: int = 0
    until: frozenset[int] = frozenset()
    segments: tuple[str, ...] = ()
    others: Mapping[str, KeySet] | None = None
    phase: str = ""
    then: Then | None = None

    def keys(self, name: str) -> KeySet | None:
        """A key set by its name in the plan; None where the pass has none of that name."""
        return self if name == OWN else None if self.others is None else self.others.get(name)

    @property
    def rows(self) -> int:
        return len(self.positions)

    def check_for(self, plan: Plan) -> None:
        """Refuse what only logits give, of a plan without a head, and a pass without keys that its ops see.

        Raises
        ------
        UnsupportedError
        ArgumentError
        """
        of_logits = (self.wanted_tokens, self.bans, self.draws)
        if "logits" not in plan.outputs and (self.want_logits or any(array is not None for array in of_logits)):
            raise no_head(plan)
        rows = plan.position_rows
        if rows is not None and (last := int(self.positions.max(initial=0)) + self.ahead) >= rows:
            raise ArgumentError(f"positions must lie in 0..{rows - 1}, for which the model has embeddings, got {last}")
        if len(plan.key_sets) > 1:
            for name, op in plan.readers(self.first_layer, self.end_layer, self.segments).items():
                if self.keys(name) is None:
                    raise ArgumentError(
                        f"{op.kind} ({op.segment}) needs the key set {short(name)}, which this pass lacks"
                    )


def no_head(plan: Plan) -> UnsupportedError:
    """The error of whoever asks for what only logits give."""
    return UnsupportedError(
        f"this model ({plan.architecture}) has no head: it gives {listed(plan.given(0))}, no logits"
    )


@dataclass
class Outcome:
    """What a pass gave; every array but the logits belongs to the executor and holds until its next pass.

    Attributes
    ----------
    statistics : float32 (fields, reads and rows ahead)
        those of RowStatistics, of which the first holds int32; no reads of a plan without a head
    log_probs : float32 (reads,) or None
        of the wanted tokens, in nats; None without any
    logits : float32 (reads, vocab_size) or None
    outputs : dict[str, np.ndarray]
        where they are wanted, the plan's other outputs by name, float32 (rows, width); those of rows that are read,
        (reads, width)
    stream : float32 (rows, hidden_size)
        leaves end_layer; (0, hidden_size) where `segments` ran
    drawn : int32 (reads and rows ahead,) or None
        tokens, where `draws` has a temperature; else None
    taps : dict[str, np.ndarray]
        by name, float32 (rows, width)
    went_on : int32 (n,) or None
        of a pass with `then`: the tokens of all rows that stay, those of the last pass among them
    """

    statistics: np.ndarray
    log_probs: np.ndarray | None
    logits: np.ndarray | None
    outputs: dict[str, np.ndarray]
    stream: np.ndarray
    drawn: np.ndarray | None = None
    taps: dict[str, np.ndarray] = field(default_factory=dict)
    went_on: np.ndarray | None = None
