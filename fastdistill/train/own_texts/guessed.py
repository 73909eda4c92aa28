"""How often a draft's guesses are right, along texts that it has not learnt from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RANKS = 4  # guesses of a place, the likeliest first


@dataclass(frozen=True)
class Guessed:
    """Of guesses along texts, where all guesses before them were right.

    Attributes
    ----------
    ranks : float64 (depths, RANKS)
        how often the token was the guess of each rank
    """

    ranks: np.ndarray

    @property
    def tokens(self) -> float:
        """A forward of the target, with a chain of first guesses: 1 + a[0] + a[0] a[1] + ..."""
        return 1.0 + float(np.cumprod(self.ranks[:, 0]).sum())
