"""The rows of a lookahead step as one tree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, lib, pointer
from fastdistill.kernels.verify.tree_layout import tree_layout

MOST_ROWS = 1 << 16


class LookaheadLayout(NamedTuple):
    """A lookahead step as one tree: the seed, then the window level by level, then the guesses one after another.

    Attributes
    ----------
    tokens : int32 (rows,)
        -1 where only counts were given
    parents : int32 (rows,)
        -1 for the seed, else an earlier row
    positions : int32 (rows,)
        depths, the seed's is 0
    cells : int32 (levels, columns)
        the row of each cell of the window
    branches : int32 (guesses, ngram - 1)
        the row of each token of a guess
    """

    tokens: np.ndarray
    parents: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    branches: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """bool (rows, rows): whether row r sees row c, that is, whether c is r or above it."""
        return tree_layout(self.parents).visible


def lookahead_layout(
    window: int | np.ndarray, ngram: int, guesses: int | np.ndarray, *, seed: int = -1
) -> LookaheadLayout:
    """Seed, window and guesses of a lookahead step as one tree: a row sees its ancestors and itself.

    The token of window level l, column i stands at position 1 + i + l after the seed. It sees the seed, level 0 up to
    column i, and its own column above it. A guess sees the seed and its own tokens. Where tokens are given, of one or
    both, rows with one parent and one token have one context and stand once, the first of them; a row may then belong
    to cells and guesses alike.

    Parameters
    ----------
    window : int | np.ndarray
        how many columns, of ngram - 1 levels; or their tokens, int32 (levels, columns), levels <= ngram - 1
    ngram : int
        2..64
    guesses : int | np.ndarray
        how many; or their tokens, int32 (guesses, ngram - 1)
    seed : int, default -1
        the token of row 0

    Returns
    -------
    LookaheadLayout

    Raises
    ------
    ArgumentError
        also where one of window and guesses is tokens and the other a count above 0, and where there are more than
        65536 rows before any are merged

    References
    ----------
    Fu et al. 2024, Lookahead Decoding, arXiv 2402.02057
    """
    length = check_integer("ngram", ngram, 2, 64) - 1
    seed = check_integer("seed", seed, -(2**31), 2**31 - 1)
    given, arrays = {"window": window, "guesses": guesses}, (np.ndarray, list, tuple)
    counts = {name: check_integer(name, n, 0, MOST_ROWS) for name, n in given.items() if not isinstance(n, arrays)}
    merged = len(counts) < 2
    cell_tokens = np.full((length, counts["window"]), -1, np.int32) if "window" in counts else window
    branch_tokens = np.full((counts["guesses"], length), -1, np.int32) if "guesses" in counts else guesses
    cell_tokens = as_array("window", cell_tokens, np.int32, ("levels", "columns"))
    branch_tokens = as_array("guesses", branch_tokens, np.int32, ("guesses", length))
    (levels, columns), branch_count = cell_tokens.shape, len(branch_tokens)
    for name, count in counts.items():
        if merged and count > 0:
            wanted = "window and guesses must be tokens both or counts both, or one a count of 0"
            raise ArgumentError(f"{wanted}; got tokens and {name} = {count}")
    if levels > length:
        raise ArgumentError(f"window must have at most ngram - 1 = {length} levels, got {levels}")
    rows = 1 + levels * columns + branch_count * length
    if rows > MOST_ROWS:
        raise ArgumentError(f"window and guesses must make at most {MOST_ROWS} rows with the seed, got {rows}")
    tokens, parents, positions = (np.empty(rows, np.int32) for _ in range(3))
    cells, branches = np.empty((levels, columns), np.int32), np.empty((branch_count, length), np.int32)
    first_child, next_sibling = (np.empty(rows, np.int32) if merged else None for _ in range(2))
    found = lib.fd_lookahead_layout(
        levels, columns, branch_count, length, const(cell_tokens), const(branch_tokens), seed, pointer(tokens), pointer(parents),
        pointer(positions), pointer(cells), pointer(branches), pointer(first_child), pointer(next_sibling),
    )  # fmt: skip
    return LookaheadLayout(tokens[:found], parents[:found], positions[:found], cells, branches)
