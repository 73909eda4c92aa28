"""Nested embeddings: beginnings that are the smaller model's, new coordinates that are new, and three regressions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import apply_chain, reverse_chain, reverse_fit
from fastdistill.errors import ArgumentError, NotFiniteError

regressions = st.sampled_from(["pcr", "ols", "ridge"])


@st.composite
def pairs(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    narrow = draw(st.integers(1, 4))
    wide = narrow + draw(st.integers(0, 4))
    rows = draw(st.sampled_from([2, 3, 5, 40]))
    inputs = random.standard_normal((rows, narrow)) + 3
    return inputs, inputs @ random.standard_normal((narrow, wide)) + random.standard_normal((rows, wide))


@given(pair=pairs(), regression=regressions, dtype=st.sampled_from([np.float32, np.float64]))
def test_the_beginning_is_the_smaller_embedding_bit_by_bit(pair, regression, dtype):
    inputs, targets = (array.astype(dtype) for array in pair)
    level = reverse_fit(inputs, targets, regression=regression)
    found = level.apply(inputs, targets)
    assert found.dtype == dtype and found.shape == targets.shape
    np.testing.assert_array_equal(found[:, : inputs.shape[1]], inputs)
    np.testing.assert_allclose(level.components @ level.components.T, np.eye(len(level.components)), rtol=0, atol=1e-12)
    largest = np.abs(level.components).argmax(axis=1)
    assert (level.components[np.arange(len(largest)), largest] > 0).all()
    assert -1e-12 <= level.explained <= 1 + 1e-12


@given(pair=pairs())
def test_new_coordinates_are_uncorrelated_with_the_old_ones(pair):
    """Of least squares, on the rows that it was fitted to."""
    inputs, targets = pair
    found = reverse_fit(inputs, targets, regression="ols").apply(inputs, targets)
    centred = found - found.mean(axis=0)
    narrow = inputs.shape[1]
    np.testing.assert_allclose(centred[:, :narrow].T @ centred[:, narrow:], 0, rtol=0, atol=1e-9)


@given(pair=pairs(), regression=regressions)
def test_the_formulas(pair, regression):
    """The coefficients by normal equations, and new coordinates of the largest variance that any directions have."""
    inputs, targets = pair
    level = reverse_fit(inputs, targets, regression=regression, ridge=0.7)
    x, y = inputs - inputs.mean(axis=0), targets - targets.mean(axis=0)
    if regression == "ridge":
        want = np.linalg.solve(x.T @ x + 0.7 * np.eye(x.shape[1]), x.T @ y)
    elif regression == "ols":
        want = np.linalg.pinv(x, rcond=1e-12) @ y
    else:
        directions = np.linalg.svd(x, full_matrices=False)[2][: level.kept]
        want = directions.T @ np.linalg.lstsq(x @ directions.T, y, rcond=None)[0]
    np.testing.assert_allclose(level.coefficients, want, rtol=1e-8, atol=1e-8)
    residual = y - x @ want
    kept = ((residual @ level.components.T) ** 2).sum()
    values = np.linalg.svd(residual, compute_uv=False) ** 2
    np.testing.assert_allclose(kept, values[: len(level.components)].sum(), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(level.explained, 1 - (residual**2).sum() / (y**2).sum(), rtol=1e-8, atol=1e-9)


@given(pair=pairs(), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(pair, seed):
    inputs, targets = pair
    want = reverse_fit(inputs, targets)
    order = np.random.default_rng(seed).permutation(len(inputs))
    got = reverse_fit(inputs[order], targets[order])
    np.testing.assert_allclose(got.coefficients, want.coefficients, rtol=1e-7, atol=1e-8)
    assert got.kept == want.kept


def test_a_linear_function_of_the_smaller_embedding_adds_nothing():
    random = np.random.default_rng(0)
    inputs = random.standard_normal((50, 3))
    targets = inputs @ random.standard_normal((3, 7)) + 2
    level = reverse_fit(inputs, targets, regression="ols")
    np.testing.assert_allclose(level.apply(inputs, targets)[:, 3:], 0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(level.explained, 1, rtol=1e-12)


def test_gram_matrices_give_the_same_fit():
    """Residual covariance S_yy - S_yx S_xx^-1 S_xy, from sums over rows alone."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((200, 3))
    targets = inputs @ random.standard_normal((3, 6)) + random.standard_normal((200, 6)) * [3, 2.5, 2, 1.5, 1, 0.5]
    level = reverse_fit(inputs, targets, regression="ols")
    x, y = inputs - inputs.mean(axis=0), targets - targets.mean(axis=0)
    coefficients = np.linalg.solve(x.T @ x, x.T @ y)
    np.testing.assert_allclose(level.coefficients, coefficients, rtol=1e-9)
    _, vectors = np.linalg.eigh(y.T @ y - y.T @ x @ coefficients)
    want = vectors[:, ::-1].T[:3]
    np.testing.assert_allclose(np.abs(level.components @ want.T), np.eye(3), rtol=0, atol=1e-6)


def test_principal_components_above_the_edge_of_noise_are_kept():
    """Two strong directions in noise of variance 1: with n = 400 and d = 40 noise reaches (1 + sqrt 0.1)^2 = 1.73."""
    random = np.random.default_rng(2)
    inputs = random.standard_normal((400, 40))
    inputs[:, :2] *= 6
    targets = np.concatenate([inputs, random.standard_normal((400, 3))], axis=1)
    assert reverse_fit(inputs, targets).kept == 2
    assert reverse_fit(inputs, targets, regression="ols").kept == 40
    # Where most directions are strong the noise is the median of the others.
    strong = random.standard_normal((400, 7)) * [10, 7, 4.5, 3, 1, 1, 1]
    assert reverse_fit(strong, strong).kept == 4


def test_fewer_rows_than_columns_fall_back_to_most_of_the_variance():
    """The edge is above 4 then: where no eigenvalue is so far above the median, those of 95% are kept."""
    random = np.random.default_rng(3)
    inputs = random.standard_normal((10, 30))
    level = reverse_fit(inputs, np.concatenate([inputs, inputs[:, :5] ** 2], axis=1))
    values = np.linalg.svd(inputs - inputs.mean(axis=0), compute_uv=False) ** 2
    assert level.kept == np.searchsorted(np.cumsum(values) / values.sum(), 0.95) + 1
    constant = reverse_fit(np.ones((4, 2)), random.standard_normal((4, 3)))
    assert constant.kept == 0 and not constant.coefficients.any()


@pytest.mark.parametrize("regression", ["pcr", "ols", "ridge"])
def test_a_chain_is_nested_at_every_width(regression):
    random = np.random.default_rng(4)
    shared = random.standard_normal((60, 2))
    family = [
        np.concatenate([shared, random.standard_normal((60, width - 2))], axis=1)
        @ random.standard_normal((width, width))
        for width in (3, 5, 5, 8)
    ]
    levels = reverse_chain(family, regression=regression)
    found = apply_chain(levels, family)
    for count in (1, 2, 3, 4):
        part = apply_chain(levels[: count - 1], family[:count])
        np.testing.assert_array_equal(found[:, : part.shape[1]], part)
    assert found.shape == (60, 8) and [level.components.shape[0] for level in levels] == [2, 0, 3]
    assert reverse_chain(family[:1]) == []


def test_new_rows_are_transformed_by_what_was_fitted():
    random = np.random.default_rng(5)
    inputs, targets = random.standard_normal((30, 2)), random.standard_normal((30, 4))
    level = reverse_fit(inputs, targets)
    whole = level.apply(inputs, targets)
    np.testing.assert_allclose(level.apply(inputs[:7], targets[:7]), whole[:7], rtol=0, atol=1e-14)
    assert level.apply(inputs[:0], targets[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: reverse_fit(np.zeros((1, 2)), np.zeros((1, 3))), "2 rows at least"),
        (lambda: reverse_fit(np.zeros((3, 3)), np.zeros((3, 2))), "as wide as inputs or wider"),
        (lambda: reverse_fit(np.zeros((3, 0)), np.zeros((3, 2))), "2 rows at least"),
        (lambda: reverse_fit(np.zeros((3, 2)), np.zeros((4, 2))), r"targets must have shape \(3, targets\)"),
        (lambda: reverse_fit(np.zeros((3, 2)), np.zeros((3, 2), np.float32)), "targets must have dtype float64 as inputs has"),
        (lambda: reverse_fit(np.zeros((3, 2)), np.zeros((3, 2)), regression="lasso"), "regression must be one of pcr, ols, ridge"),
        (lambda: reverse_fit(np.zeros((3, 2)), np.zeros((3, 2)), regression="ridge", ridge=0.0), "ridge must be above 0"),
        (lambda: reverse_chain([]), "embeddings must be a list of arrays, at least one"),
        (lambda: reverse_chain(np.zeros((2, 2))), "embeddings must be a list of arrays"),
        (lambda: reverse_chain([np.zeros((3, 2)), np.zeros((4, 2))]), r"embeddings\[1\] must have shape \(3, width\)"),
        (lambda: apply_chain([], [np.zeros((3, 2))] * 2), "embeddings must be one more than levels, got 2 and 0"),
        (lambda: apply_chain([1], [np.zeros((3, 2))] * 2), "levels must be a list of ReverseLevel"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


def test_names_what_is_not_finite():
    bad = np.zeros((3, 2))
    bad[2, 1] = np.inf
    with pytest.raises(NotFiniteError, match=r"inputs holds .*: inputs\[2, 1\]"):
        reverse_fit(bad, np.zeros((3, 3)))
    with pytest.raises(NotFiniteError, match=r"targets holds .*: targets\[2, "):
        reverse_fit(np.zeros((3, 2)), bad)
