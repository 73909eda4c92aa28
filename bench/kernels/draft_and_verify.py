"""Guesses of a static unmasking schedule: 4 branches of a block of 32, 8 of 256 positions, 8 of 1024 with 32 committed a step."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.lib.levels import compare
from bench.lib.report import Report
from fastdistill.kernels import Drafted, draft_and_verify
from fastdistill.reference.unmask.draft_and_verify import draft_and_verify as reference_draft_and_verify

VOCAB, MASK = 32000, 32000
CASES = [(4, 32, 1), (8, 256, 1), (8, 1024, 32)]  # branches, positions, committed a step


def guessed(branches: int, n: int, quota: int) -> tuple[np.ndarray, ...]:
    """States half of whose positions are masked, the model's words, and the steps: all guesses are right but the last."""
    generator = np.random.default_rng(0)
    state = np.where(generator.random(n) < 0.5, MASK, generator.integers(0, VOCAB, n)).astype(np.int32)
    tokens = np.tile(generator.integers(0, VOCAB, n).astype(np.int32), (branches, 1))
    scores = np.tile(generator.random(n).astype(np.float32), (branches, 1))
    steps = np.tile(np.array([0, n, quota], np.int32), (2 * branches, 1))
    made = draft_and_verify(state[None], tokens[:1], scores[:1], steps, MASK, branches - 1).drafts
    made[-1] ^= 1
    return np.vstack([state, made]), tokens, scores, steps


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    for branches, n, quota in CASES:
        arguments = (*guessed(branches, n, quota), MASK, branches)
        expected = reference_draft_and_verify(*arguments)

        def check(found: Drafted, expected: tuple[int, np.ndarray] = expected) -> None:
            assert found.accepted == expected[0]
            np.testing.assert_array_equal(found.drafts, expected[1])

        compare(
            report, options, f"{branches} x {n}", lambda threads, given=arguments: draft_and_verify(*given), check,
            lambda given=arguments: reference_draft_and_verify(*given), threaded=False,
        )  # fmt: skip
    return report
