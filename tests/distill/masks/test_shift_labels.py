"""The shift by one: row i learns token i + 1, and no sequence learns from the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import shift_labels
from fastdistill.errors import ArgumentError


@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(0,), (1,), (7,), (2, 5), (2, 0)]))
def test_each_row_has_the_token_behind_it(seed, shape):
    random = np.random.default_rng(seed)
    tokens, sequences = random.integers(0, 9, shape), np.sort(random.integers(0, 3, shape), axis=-1)
    for packed in (None, sequences):
        found = shift_labels(tokens, packed)
        assert found.dtype == np.int32 and found.shape == shape
        for at in np.ndindex(shape):
            behind = (*at[:-1], at[-1] + 1)
            inside = behind[-1] < shape[-1] and (packed is None or packed[at] == packed[behind])
            assert found[at] == (tokens[behind] if inside else -100)


def test_ignored_labels_stay_ignored_in_the_row_before():
    np.testing.assert_array_equal(shift_labels([-100, -100, 5, 6]), [-100, 5, 6, -100])
    np.testing.assert_array_equal(shift_labels([1, 2, 3, 4], [0, 0, 1, 1]), [2, -100, 4, -100])


def test_a_bigram_table_is_learnt_by_shifted_labels_alone():
    """Rows are logits of the next token: the label with the least cost is the one of the row behind."""
    follows = np.array([3, 0, 1, 2])
    tokens = [0]
    for _ in range(20):
        tokens.append(int(follows[tokens[-1]]))
    rows = np.eye(4)[follows[tokens]]
    right = shift_labels(tokens)
    assert (rows[np.arange(20), right[:-1]] == 1).all()
    assert (rows[np.arange(20), tokens[:-1]] == 0).all()  # in place: wrong everywhere


def test_refuses():
    with pytest.raises(ArgumentError, match=r"tokens must have shape \(..., length\), got \(\)"):
        shift_labels(3)
    with pytest.raises(ArgumentError, match=r"sequences must have shape \(2,\)"):
        shift_labels([1, 2], [1])
    with pytest.raises(ArgumentError, match="tokens must hold integers"):
        shift_labels([1.0])
