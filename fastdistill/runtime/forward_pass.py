"""One forward pass as both executors see it: the rows, where they lie, and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastdistill.runtime.kv_cache import KVCache

POSITION_LIMIT = 1 << 20  # csrc/kernels/rotary.c reduces angles exactly up to here


@dataclass
class ForwardPass:
    """Rows of one or several sequences.

    A node's visible slots in position order are runs of (start, length): those of node g are
    runs[run_offsets[g] : run_offsets[g + 1]].
    """

    tokens: np.ndarray | None  # int32 (rows,), or None where `inputs` is given
    inputs: np.ndarray | None  # float32 (rows, hidden_size)
    positions: np.ndarray  # int32 (rows,)
    sequences: np.ndarray  # int32 (rows,): which cache
    slots: np.ndarray  # int32 (rows,)
    nodes: np.ndarray  # int32 (rows,): which list of visible slots
    runs: np.ndarray  # int32 (runs, 2)
    run_offsets: np.ndarray  # int64 (nodes + 1,)
    caches: list[KVCache]
    read_rows: np.ndarray  # int32 (reads,)
    wanted_tokens: np.ndarray | None = None  # int32 (reads,)
    banned: np.ndarray | None = None  # int32: tokens whose logits are -inf; of read row i, ascending,
    bans: np.ndarray | None = None  # banned[bans[i, 0] : bans[i, 1]]; int64 (reads, 2)
    want_logits: bool = False
    want_hidden: bool = False
    draws: np.ndarray | None = None  # DRAW (reads,): what the head draws with
    first_layer: int = 0
    end_layer: int = 0
    stream: np.ndarray | None = None  # float32 (rows, hidden_size) entering first_layer, where that is not 0

    @property
    def rows(self) -> int:
        return len(self.positions)

    @property
    def key_counts(self) -> np.ndarray:
        """How many slots each node sees, int64 (nodes,)."""
        return np.add.reduceat(self.runs[:, 1].astype(np.int64), self.run_offsets[:-1])

    def visible(self, node: int) -> np.ndarray:
        """Slots that a node sees, in position order."""
        runs = self.runs[self.run_offsets[node] : self.run_offsets[node + 1]]
        return np.concatenate([np.arange(start, start + length) for start, length in runs])


@dataclass
class Outcome:
    """What a pass gave; each array belongs to the executor and holds until its next pass."""

    statistics: tuple[np.ndarray, ...]  # RowStatistics fields, each (reads,)
    log_probs: np.ndarray | None  # float32 (reads,)
    logits: np.ndarray | None  # float32 (reads, vocab_size)
    hidden: np.ndarray | None  # float32 (reads, hidden_size)
    stream: np.ndarray  # float32 (rows, hidden_size) leaving end_layer
    drawn: np.ndarray | None = None  # int32 (reads,): where `draws` has a temperature
    taps: dict[str, np.ndarray] = field(default_factory=dict)  # float32 (rows, width)
