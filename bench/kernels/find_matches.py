"""The best 4 earlier occurrences of the end of a text of 8192 tokens."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import Matches, find_matches
from fastdistill.reference.verify.find_matches import find_matches as reference_find_matches

LENGTH, MAX_MATCH, COUNT = 8192, 8, 4


def with_numpy(tokens: np.ndarray) -> list[tuple[int, int]]:
    """What one would write by hand: from the longest length down, every place at once."""
    n, found = len(tokens), {}
    for length in range(MAX_MATCH, 0, -1):
        places = np.lib.stride_tricks.sliding_window_view(tokens[:-1], length)
        for start in np.nonzero((places == tokens[n - length :]).all(axis=1))[0][::-1] + length:
            found.setdefault(int(start), length)
        if len(found) >= COUNT:
            break
    return list(found.items())[:COUNT]


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    generator = np.random.default_rng(0)
    words = np.minimum(generator.zipf(1.2, LENGTH), 49151)  # a few tokens make up much of a text
    copied = words.copy()
    copied[-40:] = copied[1000:1040]
    loop = np.resize(words[:3], LENGTH)
    for case, text in (("a text", words), ("a copied span", copied), ("a loop of 3 tokens", loop)):
        tokens = text.astype(np.int32)
        expected = reference_find_matches(tokens, MAX_MATCH, 1, COUNT)

        def check(found: Matches, expected: tuple[np.ndarray, np.ndarray] = expected) -> None:
            np.testing.assert_array_equal(found, expected)

        compare(
            report, options, case, lambda threads, tokens=tokens: find_matches(tokens, MAX_MATCH, 1, COUNT), check,
            lambda tokens=tokens: with_numpy(tokens), threaded=False,
        )  # fmt: skip
    return report
