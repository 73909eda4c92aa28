"""BARD's corruption: probabilities of three fates, what is drawn, and what counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import corrupt, mixed_noise_probabilities
from fastdistill.errors import ArgumentError

MASK = 9


@given(noise=st.floats(0, 1))
def test_the_three_probabilities_are_the_formulas_and_sum_to_one(noise):
    found = mixed_noise_probabilities(noise)
    phi = math.pi * noise / 2
    want = 1 - math.cos(phi), math.sin(phi) + math.cos(phi) - 1, 1 - math.sin(phi)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-15)
    np.testing.assert_allclose(sum(found), 1, rtol=1e-15)
    assert min(found) >= 0


def test_the_ends_are_exact_and_the_middle_has_the_most_random_tokens():
    levels = np.linspace(0, 1, 101)
    found = mixed_noise_probabilities(levels)
    np.testing.assert_array_equal([part[0] for part in found], [0, 0, 1])
    np.testing.assert_allclose([part[-1] for part in found], [1, 0, 0], rtol=1e-15)
    assert found.uniform[-1] == found.clean[-1] == 0
    assert found.uniform.argmax() == 50
    np.testing.assert_allclose(found.uniform[50], math.sqrt(2) - 1, rtol=1e-15)
    assert (np.diff(found.mask) > 0).all() and (np.diff(found.clean) < 0).all()


def test_a_floor_keeps_the_sum():
    found = mixed_noise_probabilities([0.0, 0.5, 1.0], floor=0.001)
    np.testing.assert_allclose(sum(found), 1, rtol=1e-15)
    np.testing.assert_allclose(found.clean[2], 0.001 / 1.001, rtol=1e-14)
    np.testing.assert_array_equal(found.clean[0], 1)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["mask", "mixed"]), blocks=st.sampled_from([1, 2, 4, 12]))
def test_what_is_not_the_token_counts_and_nothing_else(seed, kind, blocks):
    random = np.random.default_rng(seed)
    tokens, noise = random.integers(0, 8, (3, 12)).astype(np.int32), random.random((3, blocks))
    found = corrupt(tokens, noise, MASK, seed, kind=kind, vocab=12, excluded=[0, 11])
    np.testing.assert_array_equal(found.counted, found.tokens != tokens)
    each = np.repeat(noise, 12 // blocks, axis=1)
    if kind == "mask":
        np.testing.assert_array_equal(found.counted, found.tokens == MASK)
        np.testing.assert_array_equal(found.weights, np.where(found.counted, 1 / each, 0))
    else:
        np.testing.assert_array_equal(found.weights, found.counted)
        drawn = found.tokens[found.counted & (found.tokens != MASK)]
        assert not np.isin(drawn, [0, 11]).any() and (drawn < 12).all()
    again = corrupt(tokens, noise, MASK, np.random.default_rng(seed), kind=kind, vocab=12, excluded=[0, 11])
    assert found.tokens.tobytes() == again.tokens.tobytes() and found.tokens.dtype == np.int32


def test_no_noise_leaves_all_and_full_noise_masks_all():
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4)
    for kind in ("mask", "mixed"):
        clean = corrupt(tokens, np.zeros((2, 1)), MASK, 0, kind=kind, vocab=9)
        assert not clean.counted.any() and not clean.weights.any() and (clean.tokens == tokens).all()
        masked = corrupt(tokens, np.ones((2, 1)), MASK, 0, kind=kind, vocab=9)
        assert (masked.tokens == MASK).all() and (masked.weights == 1).all()


def test_a_tokens_weight_is_one_in_the_mean():
    tokens, noise = np.zeros((400, 100), np.int32), np.full((400, 4), 0.25)
    noise[:, 1] = 0.9
    found = corrupt(tokens, noise, MASK, 0)
    for begin, level in ((0, 0.25), (25, 0.9)):
        part = found.weights[:, begin : begin + 25]
        deviation = math.sqrt((1 / level - 1) / part.size)
        assert abs(part.mean() - 1) < 4 * deviation


def test_the_law_of_mixed_noise():
    tokens, level = np.zeros((400, 100), np.int32), 0.4
    found = corrupt(tokens, np.full((400, 1), level), MASK, 0, kind="mixed", vocab=10)
    chances = mixed_noise_probabilities(level)
    uniform = np.bincount(found.tokens.reshape(-1), minlength=10) / tokens.size
    wanted = np.full(10, chances.uniform / 9)
    wanted[0] += chances.clean
    wanted[MASK] = chances.mask
    assert (np.abs(uniform - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / tokens.size)).all()
    assert abs(found.counted.mean() - chances.mask - chances.uniform * 8 / 9) < 4 * 0.5 / 200


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tokens": [[9, 1]]}, r"tokens must not hold mask_token 9; it stands at \(0, 0\)"),
        ({"tokens": [1, 2]}, r"tokens must have shape \(rows, length\)"),
        ({"noise": [[0.5, 0.5, 0.5]]}, "divides the length 2, got 3"),
        ({"noise": [[]]}, "divides the length 2, got 0"),
        ({"noise": [[1.5]]}, "noise must lie in 0..1"),
        ({"noise": [[np.nan]]}, "noise must lie in 0..1"),
        ({"noise": [[0.5], [0.5]]}, r"noise must have shape \(1, blocks\)"),
        ({"kind": "blur"}, "kind must be one of mask, mixed"),
        ({"vocab": None}, 'vocab must be given for kind "mixed"'),
        ({"excluded": [12]}, r"excluded\[0\] must lie in 0..11"),
        ({"vocab": 2, "excluded": [0, 1]}, "excluded must leave a token to draw"),
        ({"mask_token": -1}, "mask_token must lie in"),
        ({"generator": "0"}, "generator must be a numpy.random.Generator or an integer seed"),
        ({"floor": 2.0}, "floor must lie in 0..1"),
    ],
)
def test_refuses(change, text):
    arguments = {"tokens": [[1, 2]], "noise": [[0.5]], "mask_token": 9, "generator": 0, "kind": "mixed", "vocab": 12}
    with pytest.raises(ArgumentError, match=text):
        corrupt(**(arguments | change))


def test_noise_of_no_level_is_refused():
    with pytest.raises(ArgumentError, match=r"noise must lie in 0..1"):
        mixed_noise_probabilities(-0.1)
