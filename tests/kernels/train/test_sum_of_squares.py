"""sum_of_squares against its reference, on every level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError
from fastdistill.kernels import isa_levels, set_isa, sum_of_squares
from fastdistill.testing import strategies
from fastdistill.testing.cases.train.sum_of_squares import check


@given(case=strategies.sum_of_squares())
def test_matches_reference_with_the_same_bits_everywhere(isa, case):
    got = check(case)
    for level in isa_levels():
        set_isa(level)
        assert sum_of_squares(**case, threads=3) == got
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
