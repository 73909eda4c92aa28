"""Chances by key: another key, another number, the target's own draws included."""

from __future__ import annotations

import numpy as np

from fastdistill.decode.chance import DRAFT, VERDICT, uniforms
from fastdistill.kernels.sample.sample import Sampler


def test_every_part_of_the_key_matters():
    found = [
        uniforms(Sampler(seed=seed, sequence=sequence), position, round, 3, purpose)
        for seed in (1, 1 + (1 << 32))
        for sequence in (0, 1)
        for position in (0, 5)
        for round in (0, 1)
        for purpose in (0, DRAFT, VERDICT)
    ]
    assert len(np.unique(found)) == np.size(found)


def test_a_verdict_is_drawn_apart_from_tokens_and_drafts():
    verdict = uniforms(Sampler(seed=3), 7, 2, 4)
    np.testing.assert_array_equal(verdict, uniforms(Sampler(seed=3), 7, 2, 4, VERDICT))
    assert not np.isin(verdict, [uniforms(Sampler(seed=3), 7, 2, 4, purpose) for purpose in (0, DRAFT)]).any()
    assert ((verdict >= 0) & (verdict < 1)).all()
