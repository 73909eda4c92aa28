"""Which tokens a Jacobi decoder iterates on: blocks of the text, the first one real, those after it ahead of their time.

A block is a stretch of so many tokens. The first active block is *real*: what is accepted of it is text. The others are
*pseudo*: they iterate behind text that is not certain yet, so nothing of them counts; when the real one is complete,
the next is promoted, and its guesses are as good as they have become. Where the newest block has almost settled,
another one is spawned behind it. Source: Jacobi Forcing (Hu et al. 2025), its multi-block decoding.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Blocks(NamedTuple):
    """A state of the bookkeeping; `advance` gives the next one.

    Attributes
    ----------
    size : int
        tokens of a block
    most : int
        most blocks that are active at once
    spawn : float
        part of the newest block that has to have settled before another one is spawned; 0: at once
    left : tuple[int, ...]
        of each active block, the real one first: the tokens that it still lacks
    """

    size: int
    most: int = 1
    spawn: float = 0.85
    left: tuple[int, ...] = ()

    @classmethod
    def begin(cls, size: int, most: int, spawn: float) -> Blocks:
        """One block, nothing of it known, and those that can be spawned at once."""
        return cls(size, most, spawn, (size,))._spawned(0)

    @property
    def guesses(self) -> int:
        """Tokens of all active blocks that are not text yet."""
        return sum(self.left)

    def advance(self, tokens: int, settled: int = 0) -> Blocks:
        """After an iteration that gave so many tokens of text, 1 or more.

        Parameters
        ----------
        tokens : int
        settled : int, default 0
            leading tokens of the newest block that stayed what they were in this iteration; of the real block what is
            text counts instead
        """
        left = list(self.left)
        while tokens >= left[0]:
            tokens -= left.pop(0)  # complete: the next one is promoted,
            if not left:  # or, where none was spawned, begins
                left.append(self.size)
        left[0] -= tokens
        return self._replace(left=tuple(left))._spawned(settled)

    def _spawned(self, settled: int) -> Blocks:
        left = self.left
        if len(left) == 1:
            settled = self.size - left[0]
        while len(left) < self.most and settled >= math.ceil(self.spawn * self.size):
            left, settled = (*left, self.size), 0
        return self._replace(left=left)
