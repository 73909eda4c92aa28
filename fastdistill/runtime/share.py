"""One session's rows of a pass, checked and laid out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdistill.runtime.forward import Then
from fastdistill.runtime.pending import Pending
from fastdistill.runtime.read import Read


@dataclass
class Share:
    """Rows of one sequence, and its state once the pass has succeeded.

    Attributes
    ----------
    tokens : int32 (m,)
        -1 where a row is given as `inputs`
    inputs : float32 (m, hidden_size) or None
    positions : int32 (m,)
    nodes : int32 (m,)
        which list of visible slots
    runs : int32 (runs, 2)
        (start, length) of visible slots
    run_offsets : int64 (lists + 1,)
        where each list begins in `runs`
    first_slot : int
        of the cache, for row 0; the others follow
    reads : int32 (reads,)
        rows to read
    layers : tuple[int, int]
        the pass runs layers [start, end)
    read : Read
        what is asked of them
    pending : Pending | None
        afterwards; None: the rows are committed
    streams : float32 (m, hidden_size) or None
        enters layers[0]; None where that is 0
    out : float32 (reads, vocab_size) or None
        where the caller wants the logits
    ahead : int
        how many rows more to go on with what is drawn,
    until : frozenset[int]
        and the tokens that end that
    then : Then | None
        or what says how to go on: see `Forward`
    in_order : bool
        the positions of rows that are committed at once never fall, nor below that of the row before them
    """

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
    out: np.ndarray | None = None
    ahead: int = 0
    until: frozenset[int] = frozenset()
    then: Then | None = None
    in_order: bool = True

    def go_on(self, drawn: np.ndarray) -> None:
        """Have the rows too that have run ahead: of all that was drawn, each token but the last has become a row."""
        self.have(np.concatenate([self.tokens, drawn[:-1]]))

    def have(self, tokens: np.ndarray) -> None:
        """Have these rows, in the place of its own, from the same one on."""
        self.tokens = tokens
        self.positions = np.arange(self.positions[0], self.positions[0] + len(self.tokens), dtype=np.int32)
