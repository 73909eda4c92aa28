"""Exact transport on a line against all assignments, flows found one unit at a time, and laws of the distance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.transport import wasserstein_1d

POWERS = [1, 1.5, 2, 3]
UNIT = 2.0**-53


@given(n=st.integers(1, 6), p=st.sampled_from(POWERS), seed=st.integers(0, 2**32))
def test_is_the_best_assignment(n, p, seed):
    """Rounded points, so that there are ties."""
    x, y = np.round(np.random.default_rng(seed).standard_normal((2, n)), 1)
    cost = np.abs(x[:, None] - y) ** p
    best = min(cost[range(n), chosen].mean() for chosen in permutations(range(n)))
    np.testing.assert_allclose(wasserstein_1d(x, y, p=p), best, rtol=8 * n * UNIT, atol=4 * n * UNIT * cost.max())


@given(
    n=st.integers(1, 5), m=st.integers(1, 5), units=st.integers(1, 8), p=st.sampled_from(POWERS), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_masses_are_so_many_equal_points(n, m, units, p, seed):
    """Masses that are multiples of one unit: each unit is a point of its own, and those are assigned (the test before)."""
    random = np.random.default_rng(seed)
    x, y = random.standard_normal(n), random.standard_normal(m)
    x_units, y_units = random.integers(0, n, units), random.integers(0, m, units)
    a, b = (np.bincount(owners, minlength=size) / 4 for owners, size in ((x_units, n), (y_units, m)))
    want = wasserstein_1d(x[x_units], y[y_units], p=p) * units / 4  # some masses are 0
    most = np.abs(x[:, None] - y).max() ** p
    np.testing.assert_allclose(wasserstein_1d(x, y, a, b, p=p), want, rtol=0, atol=16 * units**2 * UNIT * most)


@given(n=st.integers(1, 40), m=st.integers(1, 40), p=st.sampled_from(POWERS), seed=st.integers(0, 2**32))
def test_laws(n, m, p, seed):
    random = np.random.default_rng(seed)
    x, y = random.standard_normal(n), random.standard_normal(m)
    a, b = random.dirichlet(np.ones(n)), random.dirichlet(np.ones(m))
    found = wasserstein_1d(x, y, a, b, p=p)
    most = (np.abs(x).max() + np.abs(y).max()) ** p
    near = {"rtol": 0, "atol": 8 * (n + m) * UNIT * most}
    np.testing.assert_allclose(wasserstein_1d(y, x, b, a, p=p), found, **near)
    np.testing.assert_allclose(wasserstein_1d(-x, -y, a, b, p=p), found, **near)
    np.testing.assert_allclose(wasserstein_1d(x, y, 3 * a, 3 * b, p=p), 3 * found, rtol=0, atol=3 * near["atol"])
    assert wasserstein_1d(x, x[::-1].copy(), a, a[::-1].copy(), p=p) <= near["atol"]
    assert found >= abs(a @ x - b @ y) ** p - near["atol"]  # Jensen
    shifted = wasserstein_1d(x, x + 7, a, a, p=p)
    np.testing.assert_allclose(shifted, 7**p, rtol=8 * (n + p) * UNIT * (1 + most))


def test_known_distances():
    zero, line = np.zeros(1), np.array([3.0, 0, 1, 2])
    assert wasserstein_1d(zero, line) == 1.5
    assert wasserstein_1d(zero, line, p=2) == 3.5
    # 0.5 at 0 and 1 against all at 0; a mass of 0 is not there.
    assert wasserstein_1d(np.array([0.0, 1, 99]), zero, np.array([0.5, 0.5, 0]), np.ones(1)) == 0.5
    got = wasserstein_1d(np.zeros(1, np.float32), np.ones(2, np.float32))
    assert got == 1 and isinstance(got, np.float64)


def test_totals_that_nearly_agree_are_taken_as_one():
    random = np.random.default_rng(2)
    x, y = random.standard_normal(6), random.standard_normal(5) + 1e3
    a, b = random.dirichlet(np.ones(6)), random.dirichlet(np.ones(5))
    for factor in (1 - 5e-9, 1 + 5e-9):
        np.testing.assert_allclose(wasserstein_1d(x, y, a, factor * b), wasserstein_1d(x, y, a, b), rtol=1e-14)


@given(leading=st.sampled_from([(0,), (1,), (3,), (2, 3)]), seed=st.integers(0, 2**32), p=st.sampled_from(POWERS))
def test_a_batch_is_its_items(leading, seed, p):
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((*leading, 5)), random.standard_normal((*leading[1:], 4))
    a = random.dirichlet(np.ones(5), leading[:1]).reshape(*leading[:1], *(1,) * (len(leading) - 1), 5)
    found = wasserstein_1d(x, y, a, p=p)
    assert found.shape == leading and found.dtype == np.float64
    for item in np.ndindex(*leading):
        one = a[(item[0], *(0,) * (len(leading) - 1))]
        assert found[item] == wasserstein_1d(x[item], y[item[1:]], one, p=p)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"x": [1.0]}, ArgumentError, "x must be a NumPy array"),
        ({"x": np.arange(3)}, ArgumentError, "x must have dtype float64, got int64"),
        ({"y": np.float64(1)}, ArgumentError, "y must be a NumPy array"),
        ({"y": np.zeros((2, 0))}, ArgumentError, "y must be a NumPy array of at least one point"),
        ({"a": np.ones(2)}, ArgumentError, r"a must have 3 masses, one a point; got shape \(2,\)"),
        ({"a": np.array([1.0, -0.5, 0.5])}, ArgumentError, "a must hold no negative mass, got -0.5"),
        ({"a": np.ones(3)}, ArgumentError, "totals of a and b must agree and be above 0, got 3 and 1"),
        ({"a": np.zeros(3), "b": np.zeros(2)}, ArgumentError, "above 0, got 0 and 0"),
        ({"b": np.ones(2, np.int32)}, ArgumentError, "b must have dtype float64, got int32"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((5, 2))}, ArgumentError, r"must broadcast, got \(2, 3\), \(5, 2\)"),
        ({"p": 0.5}, ArgumentError, r"p must lie in 1\.\.1000, got 0\.5"),
        ({"p": np.nan}, ArgumentError, "p must lie in"),
        ({"x": np.array([1, np.nan, 0])}, NotFiniteError, "x holds"),
        ({"y": np.array([np.inf, 0])}, NotFiniteError, "y holds"),
        ({"a": np.array([0.5, np.nan, 0.5])}, NotFiniteError, "a holds"),
        ({"b": np.array([np.inf, 0.5])}, NotFiniteError, "b holds"),
    ],
)
def test_refuses(change, error, text):
    with pytest.raises(error, match=text):
        wasserstein_1d(**({"x": np.zeros(3), "y": np.zeros(2)} | change))
