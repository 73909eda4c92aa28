"""The rows of a lookahead step, of n-grams of 5 tokens, equal rows merged."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import LookaheadLayout, lookahead_layout
from fastdistill.reference.fixed_point.lookahead_layout import lookahead_layout as reference_lookahead_layout

NGRAM = 5


def with_dictionary(window: np.ndarray, guesses: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """What one would write by hand: rows by parent and token, in the order in which they first stand."""
    rows, positions = {(-1, seed): 0}, [0]

    def row(parent: int, token: int) -> int:
        found = rows.setdefault((parent, token), len(rows))
        if found == len(positions):
            positions.append(positions[parent] + 1)
        return found

    cells, branches = [], []
    for level, tokens in enumerate(window.tolist()):
        cells.append([])
        for column, token in enumerate(tokens):
            cells[level].append(row(cells[level - 1][column] if level else cells[0][-1] if column else 0, token))
    for tokens in guesses.tolist():
        branches.append([0])
        for token in tokens:
            branches[-1].append(row(branches[-1][-1], token))
    parents, tokens = np.array(list(rows), np.int32).T
    return (
        tokens,
        parents,
        np.array(positions, np.int32),
        np.array(cells, np.int32),
        np.array(branches, np.int32)[:, 1:],
    )


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    words = np.minimum(np.random.default_rng(0).zipf(1.2, 1000), 49151)  # a few tokens make up much of a text
    for columns, count in ((7, 7), (15, 15), (100, 100)):
        window = np.resize(words, (NGRAM - 1, columns)).astype(np.int32)
        guesses = np.resize(words[::-1], (count, NGRAM - 1)).astype(np.int32)
        expected = reference_lookahead_layout(window, NGRAM, guesses, seed=1)

        def check(found: LookaheadLayout | tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...] = expected) -> None:
            for got, want in zip(found, expected, strict=True):
                np.testing.assert_array_equal(got, want)

        check(with_dictionary(window, guesses, 1))
        compare(
            report, options, f"{columns} columns, {count} guesses",
            lambda threads, window=window, guesses=guesses: lookahead_layout(window, NGRAM, guesses, seed=1), check,
            lambda window=window, guesses=guesses: with_dictionary(window, guesses, 1), threaded=False,
        )  # fmt: skip
    return report
