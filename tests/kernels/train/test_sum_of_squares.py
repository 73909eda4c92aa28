"""sum_of_squares against its reference, on every level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import isa_levels, set_isa, sum_of_squares
from fastdistill.reference.train.sum_of_squares import sum_of_squares as reference_sum_of_squares

# Lanes and a part, one under, at and over; parts that have to be longer than the least.
LENGTHS = [0, 1, 15, 16, 17, 1000, 4095, 4096, 4097, 3 * 4096 + 5, 512 * 4096 + 1]


@given(n=st.sampled_from(LENGTHS), seed=st.integers(0, 2**32), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_matches_reference_with_the_same_bits_everywhere(isa, n, seed, scale):
    x = np.random.default_rng(seed).standard_normal(n, np.float32) * np.float32(scale)
    got = sum_of_squares(x)
    # Squares are exact; a lane adds n / 16 of them at most, then a fold of 4 and the parts.
    assert got == pytest.approx(reference_sum_of_squares(x), rel=(min(n, 8192) / 16 + 4 + 512) * 2.0**-53, abs=0)
    for level in isa_levels():
        set_isa(level)
        assert sum_of_squares(x, threads=3) == got
    set_isa(isa)


def test_integers_are_summed_exactly(isa):
    assert sum_of_squares(np.arange(5000, dtype=np.float32)) == 4999 * 5000 * 9999 / 6


def test_the_largest_floats_do_not_overflow(isa):
    most = np.finfo(np.float32).max
    assert sum_of_squares(np.full(70, most)) == 70 * float(most) ** 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 15, 4096, 4100])
def test_the_sum_is_not_finite_where_an_element_is_not(isa, bad, where):
    x = np.zeros(4101, np.float32)
    x[where] = bad
    assert not math.isfinite(sum_of_squares(x, threads=2))


def test_reads_nothing_but_its_array(isa):
    memory = np.full(60, np.nan, np.float32)
    memory[20:41] = 2
    assert sum_of_squares(memory[20:41]) == 84


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros((2, 2), np.float32), np.zeros(8, np.float32)[::2], [1.0]])
def test_refuses(x):
    with pytest.raises(ArgumentError, match=r"^x must "):
        sum_of_squares(x)
