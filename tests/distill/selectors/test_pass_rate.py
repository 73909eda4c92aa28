"""PACED's Beta kernel by enumeration, and what rows get of a group's weight."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import expand_groups, pass_rate_weights
from fastdistill.errors import ArgumentError

powers = st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0])


@given(tries=st.integers(2, 12), alpha=powers, beta=powers)
def test_the_kernel_is_symmetric_exact_at_its_ends_and_highest_in_its_mode(tries, alpha, beta):
    passed = np.arange(tries + 1)
    found = pass_rate_weights(passed, tries, alpha, beta)
    want = [(k / tries) ** alpha * (1 - k / tries) ** beta for k in passed]
    np.testing.assert_allclose(found, want, rtol=1e-14 * (1 + alpha + beta), atol=1e-300)
    np.testing.assert_array_equal(found, pass_rate_weights(passed[::-1].copy(), tries, beta, alpha))
    assert found[0] == (1 if alpha == 0 else 0) and found[-1] == (1 if beta == 0 else 0)
    if alpha + beta:
        highest = alpha / (alpha + beta)
        assert found.max() <= highest**alpha * (1 - highest) ** beta * (1 + 1e-13)
        assert abs(found.argmax() - highest * tries) < 1


@pytest.mark.parametrize("tries", [2, 3, 5])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_the_mean_over_all_outcomes_is_biased_and_the_unbiased_one_is_not(tries, p):
    plain = unbiased = 0.0
    for outcome in product([0, 1], repeat=tries):
        k = sum(outcome)
        chance = p**k * (1 - p) ** (tries - k)
        plain += chance * pass_rate_weights([k], tries)[0]
        unbiased += chance * pass_rate_weights([k], tries, unbiased=True)[0]
    np.testing.assert_allclose(plain, (1 - 1 / tries) * p * (1 - p), rtol=1e-13)
    np.testing.assert_allclose(unbiased, p * (1 - p), rtol=1e-13)


def test_normalises():
    passed, tries = [1, 4, 2, 0], [4, 4, 4, 8]
    plain = pass_rate_weights(passed, tries)
    np.testing.assert_array_equal(plain, [3 / 16, 0, 1 / 4, 0])
    np.testing.assert_allclose(pass_rate_weights(passed, tries, normalise="mean"), plain * 4 / plain.sum(), rtol=1e-15)
    np.testing.assert_allclose(pass_rate_weights(passed, tries, normalise="sum").sum(), 1, rtol=1e-15)
    for normalise in ("none", "mean", "sum"):
        np.testing.assert_array_equal(pass_rate_weights([0, 4], 4, normalise=normalise), [0, 0])
        assert pass_rate_weights([], 4, normalise=normalise).shape == (0,)
    np.testing.assert_array_equal(pass_rate_weights([0, 2, 4], 4, 0, 0, normalise="mean"), np.ones(3))


def test_rows_share_a_groups_weight_so_that_length_does_not_count():
    groups, rows = np.array([0, 2, 2, 2, 0], np.int32), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = expand_groups([1.0, 9.0, 0.5], groups)
    np.testing.assert_allclose(found, [0.5, 1 / 6, 1 / 6, 1 / 6, 0.5], rtol=1e-15)
    np.testing.assert_allclose((found * rows).sum(), 1.0 * rows[[0, 4]].mean() + 0.5 * rows[1:4].mean(), rtol=1e-15)
    np.testing.assert_array_equal(expand_groups([1.0, 9.0, 0.5], groups, mean=False), [1, 0.5, 0.5, 0.5, 1])


def test_rows_that_do_not_count_take_no_share():
    found = expand_groups([1.0, 3.0], [0, 0, 1, 1], weights=[1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(found, [1, 0, 0, 0])
    np.testing.assert_array_equal(
        expand_groups([1.0, 3.0], [0, 0, 1, 1], weights=[3.0, 1.0, 1.0, 1.0]), [0.75, 0.25, 1.5, 1.5]
    )
    assert expand_groups([], []).shape == (0,)


@given(seed=st.integers(0, 2**32))
def test_a_group_has_its_weight_in_all_its_rows(seed):
    random = np.random.default_rng(seed)
    group_weights, groups = random.random(4), random.integers(0, 4, 20).astype(np.int32)
    found = expand_groups(group_weights, groups, weights=random.random(20))
    for group in set(groups.tolist()):
        np.testing.assert_allclose(found[groups == group].sum(), group_weights[group], rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pass_rate_weights([1], 1), "tries must be at least 2, got 1 of problem 0"),
        (lambda: pass_rate_weights([1, 5], 4), r"passed must lie in 0..4, got 5 of problem 1"),
        (lambda: pass_rate_weights([-1], 4), r"passed must lie in 0..4, got -1"),
        (lambda: pass_rate_weights([1.0], 4), "passed must hold integers"),
        (lambda: pass_rate_weights([1, 1], [4]), r"tries must be an integer or have shape \(2,\), got \(1,\)"),
        (lambda: pass_rate_weights([1], 4, -1), "alpha must lie in 0..1000"),
        (lambda: pass_rate_weights([1], 4, 1, math.inf), "beta must lie in 0..1000"),
        (lambda: pass_rate_weights([1], 4, normalise="l2"), "normalise must be one of none, mean, sum"),
        (lambda: pass_rate_weights([1], 4, 2, 1, unbiased=True), "unbiased needs alpha = beta = 1, got 2 and 1"),
        (lambda: expand_groups([1.0], [1]), "groups must lie in 0..0, got 1 in row 0"),
        (lambda: expand_groups([1.0], [-1]), "groups must lie in 0..0, got -1 in row 0"),
        (lambda: expand_groups([-1.0], [0]), "group_weights must be finite and at least 0, got -1.0 of group 0"),
        (lambda: expand_groups([math.nan], [0]), "group_weights must be finite"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
