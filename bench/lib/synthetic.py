"""A model whose text is a law's, at the cost of a real one: how fast trajectories converge is a number to choose.

Each forward is the real model's; what it draws is replaced.  The token after a row is a hash of the row's position, and,
at positions that are *coupled*, of its token too.  What is drawn after an uncoupled position is right whatever the guess
there was, after a coupled one only where that was right: so one token a forward where all positions are coupled, and
whole blocks where none is.  The law is causal, a function of the context: a decoder that writes plain decoding's text does
so here too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdistill.kernels import philox, tree_layout
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.read import Rows, read_rows


@dataclass(frozen=True)
class Law:
    """What follows a token.

    coupled  the part of the positions at which that depends on the token; those of a smaller part are also in a larger one
    """

    coupled: float
    vocab_size: int
    seed: int = 0

    def is_coupled(self, positions: np.ndarray) -> np.ndarray:
        """Of each position, int (n,): bool (n,)."""
        return self._words(positions, 0, 0) < self.coupled * 2.0**32

    def after(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The next token of each row, int32 (n,), from its token and position, int (n,)."""
        seen = np.where(self.is_coupled(positions), tokens, 0)
        return (self._words(positions, seen, 1) % self.vocab_size).astype(np.int32)

    def _words(self, positions: np.ndarray, tokens: np.ndarray | int, purpose: int) -> np.ndarray:
        counter = np.zeros((len(positions), 4), np.uint32)
        counter[:, 0], counter[:, 1], counter[:, 2] = positions, tokens, purpose
        return philox(counter, np.array([self.seed, 0], np.uint32))[:, 0]


class SyntheticSession:
    """A session whose rows draw by a law; in all else it is the real one."""

    def __init__(self, session: Any, law: Law) -> None:
        self._session, self._law = session, law
        self.writer: object = None  # as in Session
        self.runner, self.runs_ahead = None, False  # each forward by itself, through here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, asked: Forward) -> Rows:
        """As Session.run, for a chain, or a tree with no rows pending before it."""
        session, ids = self._session, np.asarray(asked.tokens, np.int32)
        assert asked.is_chain or not session.pending, "a tree has to begin at the committed context"
        depths = np.arange(len(ids)) if asked.parents is None else tree_layout(asked.parents).depths
        positions = session.length + depths  # before the forward, which commits a chain
        result = session.run(asked)
        if asked.read.sampler is None:
            return result
        reads = read_rows(asked.rows, len(ids))
        return dataclasses.replace(result, tokens=self._law.after(ids[reads], positions[reads]))
