"""Selections by score: how many rows, which of equals, what is left of weights, and what is never read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import clip_rows, reference_gap, top_fraction
from fastdistill.errors import ArgumentError, NotFiniteError


@st.composite
def batches(draw):
    """Scores without ties, or with many; weights with and without zeros; NaN where a weight is 0."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(0, 40))
    scores = random.permutation(rows) / 8.0 if draw(st.booleans()) else random.integers(0, 3, rows) / 2.0
    weights = np.where(random.random(rows) < draw(st.sampled_from([0, 0.4])), 0, random.integers(1, 5, rows) / 4)
    return np.where(weights > 0, scores, np.nan), weights


fractions = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.9, 1.0])
methods = st.sampled_from(["quantile", "exact"])


@given(batch=batches(), fraction=fractions, method=methods)
def test_keeps_the_highest_scores_with_their_weights(batch, fraction, method):
    scores, weights = batch
    found = top_fraction(scores, fraction, weights=weights, method=method)
    kept, counting = found > 0, weights > 0
    np.testing.assert_array_equal(found[kept], weights[kept])
    assert not (kept & ~counting).any()
    left = scores[counting & ~kept]
    if kept.any() and len(left):
        assert scores[kept].min() > left.max() or (method == "exact" and scores[kept].min() >= left.max())


@given(batch=batches(), fraction=fractions)
def test_how_many_are_kept(batch, fraction):
    """By quantile 1 + floor(fraction (k - 1)), and what is tied with the last of them; exactly ceil(fraction k)."""
    scores, weights = batch
    among = np.sort(scores[weights > 0])[::-1]
    exact = (top_fraction(scores, fraction, weights=weights, method="exact") > 0).sum()
    quantile = (top_fraction(scores, fraction, weights=weights) > 0).sum()
    if len(among) == 0 or fraction == 0:
        assert exact == quantile == 0
        return
    # The fractions here are what is written in decimals: of these, whole numbers of rows.
    assert exact == math.ceil(round(fraction * len(among), 9))
    least = 1 + math.floor(round(fraction * (len(among) - 1), 9))
    assert quantile >= least
    if len(set(among)) == len(among):
        # Where the threshold is a row itself, 1 - fraction may be rounded to either side of it.
        assert quantile - least in ((0,) if round(fraction * (len(among) - 1), 9) % 1 else (0, -1, 1))


def test_known_selections():
    scores = [0.1, 0.9, 0.4, 0.8, 0.2]
    np.testing.assert_array_equal(top_fraction(scores, 0.4), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(top_fraction(scores, 0.4, method="exact"), [0, 1, 0, 1, 0])
    # Of 3 rows a quantile keeps 1 + floor(0.8) and not ceil(1.2).
    np.testing.assert_array_equal(top_fraction([1.0, 2.0, 3.0], 0.4), [0, 0, 1])
    np.testing.assert_array_equal(top_fraction([1.0, 2.0, 3.0], 0.4, method="exact"), [0, 1, 1])
    # 0.07 of 100 are 7, though the product is rounded to a little more.
    assert 0.07 * 100 > 7 and top_fraction(np.arange(100.0), 0.07, method="exact").sum() == 7


def test_ties_are_all_kept_by_quantile_and_the_first_ones_exactly():
    scores = [2.0, 1.0, 2.0, 2.0, 2.0]
    np.testing.assert_array_equal(top_fraction(scores, 0.4), [1, 0, 1, 1, 1])
    np.testing.assert_array_equal(top_fraction(scores, 0.4, method="exact"), [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(top_fraction(np.zeros(5), 0.4), np.ones(5))


@given(batch=batches(), fraction=fractions, seed=st.integers(0, 99))
def test_a_permuted_batch_has_the_permuted_weights(batch, fraction, seed):
    scores, weights = batch
    order = np.random.default_rng(seed).permutation(len(scores))
    np.testing.assert_array_equal(
        top_fraction(scores[order], fraction, weights=weights[order]),
        top_fraction(scores, fraction, weights=weights)[order],
    )


def test_selectors_chain():
    scores = np.array([5.0, 1.0, 4.0, 3.0, 2.0])
    first = top_fraction(scores, 0.6, method="exact")
    np.testing.assert_array_equal(top_fraction(-scores, 0.5, weights=first, method="exact"), [0, 0, 1, 1, 0])


@pytest.mark.parametrize("method", ["quantile", "exact"])
def test_nothing_kept_is_zeros(method):
    for weights in (np.zeros(0), np.zeros(3)):
        found = top_fraction(np.full(len(weights), np.nan), 0.4, weights=weights, method=method)
        assert found.dtype == np.float64 and found.tolist() == weights.tolist()
    assert top_fraction([1.0, 2.0], 0.0, method=method).tolist() == [0, 0]
    assert top_fraction([7.0], 0.1, method=method).tolist() == [1]


def test_the_gap_to_a_reference_selects_what_can_be_learnt():
    """Row 0 is hard for both, 1 is easy for both, 2 is easy for the reference alone."""
    student, reference = np.array([5.0, 0.1, 3.0, np.nan]), np.array([4.9, 0.1, 0.2, np.inf])
    weights = np.array([1.0, 1.0, 0.5, 0.0])
    np.testing.assert_array_equal(reference_gap(student, reference, 0.34, weights=weights), [0, 0, 0.5, 0])
    np.testing.assert_array_equal(
        reference_gap(student, reference, 0.34, weights=weights, method="exact"), [1, 0, 0.5, 0]
    )
    np.testing.assert_array_equal(reference_gap(student[:3], student[:3]), np.ones(3))


def test_clipped_rows_are_those_above_the_cap():
    rows, weights = np.array([1.0, 3.0, 2.0, np.nan, 9.0]), np.array([1.0, 0.5, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(clip_rows(rows, cap=3.0, weights=weights), [1, 0.5, 1, 0, 0])
    np.testing.assert_array_equal(clip_rows(rows, cap=np.inf, weights=weights), weights)
    np.testing.assert_array_equal(clip_rows(rows, quantile=0.67, weights=weights), [1, 0.5, 1, 0, 0])  # 3.06
    np.testing.assert_array_equal(clip_rows(rows, quantile=1.0, weights=weights), weights)
    np.testing.assert_array_equal(clip_rows(np.full(4, 0.3), quantile=0.2), np.ones(4))
    assert clip_rows(np.zeros(0), quantile=0.5).shape == (0,)


def test_a_clipped_mean_is_that_of_the_kept_rows_and_a_constant():
    rows, cap = np.array([1.0, 3.0, 2.0, 9.0]), 2.5
    kept = clip_rows(rows, cap=cap)
    assert (kept * rows).sum() / 4 + cap * (4 - kept.sum()) / 4 == np.minimum(rows, cap).mean()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: top_fraction(np.zeros((2, 2)), 0.4), r"scores must have shape \(rows,\)"),
        (lambda: top_fraction(["a"], 0.4), "scores must hold numbers"),
        (lambda: top_fraction([1.0], 1.5), r"fraction must lie in 0..1, got 1.5"),
        (lambda: top_fraction([1.0], math.nan), "fraction must lie in 0..1"),
        (lambda: top_fraction([1.0], 0.5, method="top"), "method must be one of quantile, exact"),
        (lambda: top_fraction([1.0], 0.5, weights=[-1.0]), "weights must be finite and at least 0, got -1.0 in row 0"),
        (lambda: top_fraction([1.0], 0.5, weights=[1.0, 1.0]), r"weights must have shape \(1,\)"),
        (lambda: reference_gap([1.0], [1.0, 2.0]), r"reference_rows must have shape \(1,\)"),
        (lambda: reference_gap([1.0], [1.0], method="top"), "method must be one of"),
        (lambda: clip_rows([1.0]), "one of cap and quantile must be given"),
        (lambda: clip_rows([1.0], cap=1.0, quantile=0.5), "one of cap and quantile must be given"),
        (lambda: clip_rows([1.0], cap=-1.0), "cap must lie in 0..inf"),
        (lambda: clip_rows([1.0], quantile=2.0), "quantile must lie in 0..1"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_row_that_is_not_finite(bad):
    rows = np.array([0.0, bad, 1.0])
    with pytest.raises(NotFiniteError, match="scores: row 1 holds"):
        top_fraction(rows, 0.4)
    with pytest.raises(NotFiniteError, match="student_rows: row 1 holds"):
        reference_gap(rows, np.zeros(3))
    with pytest.raises(NotFiniteError, match="reference_rows: row 1 holds"):
        reference_gap(np.zeros(3), rows)
    with pytest.raises(NotFiniteError, match="rows: row 1 holds"):
        clip_rows(rows, cap=1.0)
