"""How rows become a vector: against float64, and the same bits whatever lies around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.encode import POOLINGS

WANT = {
    "cls": lambda rows: rows[0],
    "lasttoken": lambda rows: rows[-1],
    "max": lambda rows: rows.max(axis=0),
    "mean": lambda rows: rows.mean(axis=0),
    "mean_sqrt_len_tokens": lambda rows: rows.sum(axis=0) / len(rows) ** 0.5,
    "weightedmean": lambda rows: (rows * np.arange(1, len(rows) + 1)[:, None]).sum(axis=0) / (len(rows) * (len(rows) + 1) / 2),
}  # fmt: skip


@given(n=st.sampled_from([1, 2, 15, 16, 17, 200]), width=st.sampled_from([1, 8, 33]), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", POOLINGS)
def test_it_is_what_its_name_says(name, n, width, seed):
    """Sums of n float32 terms are off by at most n roundings of 2^-24 of the sum of magnitudes."""
    rows = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    want = WANT[name](rows.astype(np.float64))
    skipped = n // 3
    left_out = np.concatenate([np.zeros((skipped, width)), rows[skipped:]])  # weights count from the first row
    weighted = WANT[name](left_out.astype(np.float64)) * (n * (n + 1) / (n * (n + 1) - skipped * (skipped + 1)))
    assert_near(
        POOLINGS[name](rows, skipped),
        weighted if name == "weightedmean" else WANT[name](rows[skipped:].astype(np.float64)),
        rows,
    )
    got = POOLINGS[name](rows)
    assert got.shape == (width,) and got.dtype == np.float32
    assert_near(got, want, rows)


def assert_near(got, want, rows):
    n = len(rows)
    np.testing.assert_allclose(got, want, atol=(n + 3) * 2.0**-24 * np.abs(rows).max() * max(1, n**0.5))


@given(n=st.integers(1, 40), before=st.integers(0, 5), after=st.integers(0, 5), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", POOLINGS)
def test_rows_within_others_give_the_bits_of_rows_alone(name, n, before, after, seed):
    rows = np.random.default_rng(seed).standard_normal((before + n + after, 20)).astype(np.float32)
    within = rows[before : before + n]
    np.testing.assert_array_equal(POOLINGS[name](within), POOLINGS[name](within.copy()))
    summed = np.zeros(20, np.float32)
    for row in within:
        summed += row
    np.testing.assert_array_equal(POOLINGS["mean"](within), summed / np.float32(n))
