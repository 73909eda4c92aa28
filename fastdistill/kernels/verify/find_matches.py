"""Where the end of a text has stood before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.kernels.boundary import const, lib, pointer

MOST_MATCHES = 16


class Matches(NamedTuple):
    """Earlier occurrences of the end of a text, the best first.

    Attributes
    ----------
    starts : int32 (found,)
        where the continuation begins, counted in tokens
    lengths : int32 (found,)
        how many tokens before it are those at the end of the text
    """

    starts: np.ndarray
    lengths: np.ndarray


def find_matches(tokens: np.ndarray, max_match: int, min_match: int = 1, count: int = 1) -> Matches:
    """Earlier occurrences of the end of a text, for drafting by prompt lookup: what followed once may follow again.

    At each start 1 <= s < n the match is the longest common suffix of tokens[:s] and tokens, at most max_match long.
    Longest first, among equals the latest first. A match may overlap the end it equals.

    Parameters
    ----------
    tokens : int32 (n,)
        n of 0 or 1 has no match
    max_match : int
        min_match or more
    min_match : int, default 1
        1 or more; shorter matches are left out
    count : int, default 1
        1..16

    Returns
    -------
    Matches
        found <= count

    Raises
    ------
    ArgumentError

    References
    ----------
    Saxena 2023, prompt lookup decoding
    """
    tokens = as_array("tokens", tokens, np.int32, ("n",))
    min_match = check_integer("min_match", min_match, 1, 2**31 - 1)
    max_match = check_integer("max_match", max_match, min_match, 2**31 - 1)
    count = check_integer("count", count, 1, MOST_MATCHES)
    starts, lengths = np.empty(count, np.int32), np.empty(count, np.int32)
    found = lib.fd_find_matches(
        len(tokens), const(tokens), max_match, min_match, count, pointer(starts), pointer(lengths)
    )
    return Matches(starts[:found], lengths[:found])
