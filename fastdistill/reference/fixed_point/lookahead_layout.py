"""What `kernels.lookahead_layout` means."""

from __future__ import annotations

import numpy as np


def lookahead_layout(window, ngram, guesses, *, seed=-1):
    """tokens, parents and positions, each (rows,); cells (levels, columns) and branches (guesses, ngram - 1): their rows."""
    merged = isinstance(window, np.ndarray) or isinstance(guesses, np.ndarray)
    if not isinstance(window, np.ndarray):
        window = np.full((ngram - 1, window), -1)
    if not isinstance(guesses, np.ndarray):
        guesses = np.full((guesses, ngram - 1), -1)
    rows, cells, branches = [(int(seed), -1, 0)], np.zeros(window.shape, np.int32), np.zeros(guesses.shape, np.int32)

    def row(token, parent):
        """The row of a token below its parent: one that stands already, else the next one."""
        new = int(token), int(parent), rows[parent][2] + 1
        if not (merged and new in rows):
            rows.append(new)
            return len(rows) - 1
        return rows.index(new)

    for level, column in np.ndindex(window.shape):
        above = cells[level - 1, column] if level else cells[0, column - 1] if column else 0
        cells[level, column] = row(window[level, column], above)
    for guess, index in np.ndindex(guesses.shape):
        branches[guess, index] = row(guesses[guess, index], branches[guess, index - 1] if index else 0)
    tokens, parents, positions = np.array(rows, np.int32).T
    return tokens, parents, positions, cells, branches
