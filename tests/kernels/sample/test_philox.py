"""philox against Random123's known answers and its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import philox
from fastdistill.reference.sample.philox import philox as reference_philox
from fastdistill.testing import strategies
from fastdistill.testing.cases.sample.philox import COUNTS, check

KNOWN = [  # counter, key, words: kat_vectors of Random123
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize("function", [philox, reference_philox])
@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_known_answers(isa, function, counter, key, want):
    np.testing.assert_array_equal(function(words(counter)[None], words(key)), words(want)[None])


@pytest.mark.parametrize("n", COUNTS)
@settings(max_examples=4)
@given(data=st.data())
def test_matches_reference(isa, n, data):
    check(data.draw(strategies.philox(counts=[n])))


@pytest.mark.parametrize(
    ("counter", "key", "text"),
    [
        (np.zeros((2, 3), np.uint32), np.zeros(2, np.uint32), r"counter must have shape \(n, 4\), got \(2, 3\)"),
        (np.full((2, 4), -1), np.zeros(2, np.uint32), r"counter\[0, 0\] must lie in 0\.\.4294967295, got -1"),
        (np.zeros((2, 4), np.uint32), np.zeros(3, np.uint32), r"key must have shape \(2,\), got \(3,\)"),
    ],
)
def test_refuses(counter, key, text):
    with pytest.raises(ArgumentError, match=text):
        philox(counter, key)
