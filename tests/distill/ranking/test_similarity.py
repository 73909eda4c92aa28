"""Cosines and their gradients: by the formula, by differences, and along the embedding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import cosine_similarity, cosine_similarity_gradient
from fastdistill.distill.unit import unit, unit_gradient
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.reference.transport.pairwise_distance import pairwise_distance
from tests.distill.slopes import slopes


@given(seed=st.integers(0, 2**32), power=st.sampled_from([0, -300, 300]))
def test_is_the_cosine_whatever_the_lengths(seed, power):
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((3, 5)), random.standard_normal((4, 5))
    found = cosine_similarity(x * 10.0**power, y)
    np.testing.assert_allclose(found, 1 - pairwise_distance(x, y, "cosine"), atol=1e-14)
    single = cosine_similarity(x.astype(np.float32), y)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, found, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_is_the_derivative_and_orthogonal_to_the_embedding(dtype):
    random = np.random.default_rng(0)
    x, y, along = random.standard_normal((3, 5)), random.standard_normal((4, 5)), random.standard_normal((3, 4))
    found = cosine_similarity_gradient(along, x, y)
    np.testing.assert_allclose(found.x, slopes(lambda at: (along * cosine_similarity(at, y)).sum(), x), atol=1e-9)
    np.testing.assert_allclose(found.y, slopes(lambda at: (along * cosine_similarity(x, at)).sum(), y), atol=1e-9)
    np.testing.assert_allclose((found.x * x).sum(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose((found.y * y).sum(axis=1), 0, atol=1e-14)
    mixed = cosine_similarity_gradient(along.astype(np.float32), x.astype(dtype), y)
    assert (mixed.x.dtype, mixed.y.dtype) == (dtype, np.float64)


def test_an_embedding_of_zeros_is_like_nothing_and_stays():
    x, y = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 2.0]])
    with np.errstate(all="raise"):
        np.testing.assert_allclose(cosine_similarity(x, y), [[0], [0.8]], rtol=1e-15)
        found = cosine_similarity_gradient(np.ones((2, 1)), x, y)
    assert (found.x[0] == 0).all()
    np.testing.assert_array_equal(cosine_similarity(x[:0], y), np.zeros((0, 1)))


def test_unit_rows_and_their_gradient():
    rows = np.random.default_rng(1).standard_normal((3, 4))
    along = np.random.default_rng(2).standard_normal((3, 4))
    units, lengths = unit(rows)
    np.testing.assert_allclose(units * lengths, rows, rtol=1e-15)
    np.testing.assert_allclose(lengths[:, 0], np.linalg.norm(rows, axis=1), rtol=1e-15)
    want = slopes(lambda at: (unit(at)[0] * along).sum(), rows)
    np.testing.assert_allclose(unit_gradient(along, units, lengths), want, atol=1e-9)
    tiny, length = unit(np.array([[3e-310, 4e-310]]))
    np.testing.assert_allclose(tiny, [[0.6, 0.8]], rtol=1e-12)
    np.testing.assert_allclose(length, [[5e-310]], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"y": np.zeros((2, 3))}, ArgumentError, r"y must have shape \(m, 2\)"),
        ({"x": np.array([[0, 0], [np.inf, 0]])}, NotFiniteError, "x: row 1 holds"),
        ({"y": np.array([[np.nan, 0]])}, NotFiniteError, "y: row 0 holds"),
    ],
)
def test_refuses(change, error, text):
    arguments = {"x": np.ones((2, 2)), "y": np.ones((1, 2))} | change
    with pytest.raises(error, match=text):
        cosine_similarity(**arguments)
    with pytest.raises(error, match=text):
        cosine_similarity_gradient(np.ones((2, 1)), **arguments)


def test_refuses_a_gradient_of_another_shape():
    with pytest.raises(ArgumentError, match=r"gradient must have shape \(2, 1\)"):
        cosine_similarity_gradient(np.ones((1, 2)), np.ones((2, 2)), np.ones((1, 2)))
    with pytest.raises(NotFiniteError, match="gradient: row 1 holds"):
        cosine_similarity_gradient(np.array([[0.0], [np.nan]]), np.ones((2, 2)), np.ones((1, 2)))
