"""What `kernels.find_matches` means."""

from __future__ import annotations

import numpy as np


def find_matches(tokens, max_match, min_match=1, count=1):
    """Where the end of tokens (n,) has stood before: starts and lengths, each (found,), the best `count`.

    A match at `start` of `length` has tokens[start - length : start] == tokens[n - length : n]; it is the longest one
    there of at most max_match. Longest first, among equals the latest first.
    """
    n, found = len(tokens), []
    for start in range(1, n):
        length = 0
        while length < min(start, max_match) and tokens[start - 1 - length] == tokens[n - 1 - length]:
            length += 1
        if length >= min_match:
            found.append((length, start))
    best = sorted(found, reverse=True)[:count]
    return np.array([start for _, start in best], np.int32), np.array([length for length, _ in best], np.int32)
