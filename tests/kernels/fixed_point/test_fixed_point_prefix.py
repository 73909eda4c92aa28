"""fixed_point_prefix against its reference, on every level; known answers; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import fixed_point_prefix
from fastdistill.testing import strategies
from fastdistill.testing.cases.fixed_point.fixed_point_prefix import LENGTHS, check


@given(case=strategies.fixed_point_prefix())
def test_matches_reference(isa, case):
    got = check(case)
    assert got.shape == case["previous"].shape[:-1]


@pytest.mark.parametrize("n", LENGTHS[1:])
def test_the_first_that_differs_is_final_too(isa, n):
    """In every bit, at every place, with differences after it or none."""
    zeros = np.zeros((n, n), np.int32)
    for bit in range(32):
        one = (np.eye(n, dtype=np.uint32) << np.uint32(bit)).view(np.int32)
        for current in (one, np.maximum.accumulate(one != 0, axis=1).astype(np.int32)):
            np.testing.assert_array_equal(fixed_point_prefix(zeros, current), np.arange(1, n + 1))
    np.testing.assert_array_equal(fixed_point_prefix(zeros, zeros), np.full(n, n))


@given(case=strategies.fixed_point_prefix(), before=st.integers(0, 3), after=st.integers(0, 20))
def test_reads_its_rows_and_nothing_beside_them(isa, case, before, after):
    """The same rows between tokens that agree, and between tokens that differ."""
    want, size = fixed_point_prefix(**case), case["previous"].size
    for other in (0, 1):
        around = [
            np.pad(tokens.reshape(-1), (before, after), constant_values=value)[before : before + size].reshape(
                tokens.shape
            )
            for tokens, value in zip(case.values(), (0, other), strict=True)
        ]
        np.testing.assert_array_equal(fixed_point_prefix(*around), want)


def test_a_single_iterate_gives_a_scalar(isa):
    prefix = fixed_point_prefix(np.array([5, 6, 7], np.int32), np.array([5, 8, 9], np.int32))
    assert isinstance(prefix, np.int32) and prefix == 2
    assert fixed_point_prefix(np.empty(0, np.int32), np.empty(0, np.int32)) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"previous": [1, 2]}, r"current must have shape \(2,\)"),
        ({"previous": np.zeros((2, 3))}, "previous must have dtype int32, got float64"),
        ({"previous": np.array(3, np.int32)}, r"previous must have shape \(\.\.\., n\), got \(\)"),
        ({"current": np.full((2, 3), 2**31)}, r"current\[0, 0\] must lie in"),
        ({"current": np.zeros(3, np.int32)}, r"current must have shape \(2, 3\), got \(3,\)"),
        ({"current": np.zeros((2, 4), np.int32)}, r"current must have shape \(2, 3\), got \(2, 4\)"),
    ],
)
def test_refuses(change, text):
    zeros = np.zeros((2, 3), np.int32)
    with pytest.raises(ArgumentError, match=text):
        fixed_point_prefix(**({"previous": zeros, "current": zeros} | change))
