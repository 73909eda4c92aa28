"""Openers by the definition, sequence by sequence, and the gate of confidence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import confidence_gate, opener
from fastdistill.errors import ArgumentError, NotFiniteError


@st.composite
def batches(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(0, 30))
    entropies = random.integers(0, 5, rows) / 4.0  # sums of them are exact
    weights = np.where(random.random(rows) < draw(st.sampled_from([0, 0.3])), 0, 0.5)
    sequences = random.integers(-2, 2, rows).astype(np.int32)  # rows of a sequence need not lie together
    return np.where(weights > 0, entropies, np.nan), sequences, weights


def by_definition(entropies, sequences, fraction, weights):
    """The shortest beginning of each sequence that has the fraction of its entropy, by trying all."""
    found = np.zeros(len(entropies))
    for sequence in set(sequences.tolist()):
        rows = [row for row in np.flatnonzero(sequences == sequence) if weights[row] > 0]
        total = sum(entropies[row] for row in rows)
        if total == 0 or fraction == 0:
            continue
        length = next(m for m in range(1, len(rows) + 1) if sum(entropies[row] for row in rows[:m]) >= fraction * total)
        found[rows[:length]] = weights[rows[:length]]
    return found


@given(batch=batches(), fraction=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]))
def test_an_opener_is_the_shortest_beginning_with_its_share_of_entropy(batch, fraction):
    entropies, sequences, weights = batch
    want = by_definition(entropies, sequences, fraction, weights)
    np.testing.assert_array_equal(opener(entropies, sequences, fraction, weights=weights), want)


@given(batch=batches())
def test_openers_grow_with_the_fraction_to_the_whole_sequence(batch):
    entropies, sequences, weights = batch
    entropies = entropies + 0.25
    found = [opener(entropies, sequences, fraction, weights=weights) for fraction in (0, 0.1, 0.3, 0.7, 1.0)]
    for less, more in pairwise(found):
        assert (more >= less).all()
    np.testing.assert_array_equal(found[-1], weights)


def test_each_sequence_of_a_batch_has_its_own_opener():
    """One length for the whole batch, from entropies one after the other, would leave the second sequence without one."""
    entropies = np.array([1.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0])
    found = opener(entropies, [7, 7, 7, 7, 3, 3, 3, 3], 0.5)
    np.testing.assert_array_equal(found, [1, 1, 0, 0, 1, 0, 0, 0])


def test_one_sequence_without_numbers_and_none_without_entropy():
    np.testing.assert_array_equal(opener([1.0, 1.0, 2.0], fraction=0.5), [1, 1, 0])
    np.testing.assert_array_equal(opener([0.0, -1e-17, 0.0]), np.zeros(3))
    assert opener(np.zeros(0)).shape == (0,)
    # A last row too small for the sum of all still belongs to a whole sequence of its own.
    np.testing.assert_array_equal(opener([1e300, 1e-300, 1e-300], [0, 1, 1], 1.0), np.ones(3))


def test_the_gate_is_a_sigmoid_of_what_the_student_is_less_sure_of():
    student, teacher = np.array([1.0, 3.0, 0.0, np.nan]), np.array([1.0, 1.0, 2.0, 0.0])
    weights = np.array([1.0, 0.5, 1.0, 0.0])
    found = confidence_gate(student, teacher, weights=weights)
    np.testing.assert_allclose(found, [0.5, 0.5 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 0], rtol=4e-16)
    half = confidence_gate(student, teacher, temperature=0.5, weights=weights)
    np.testing.assert_allclose(half[1], 0.5 / (1 + np.exp(-4)), rtol=4e-16)
    with np.errstate(all="raise"):
        extreme = confidence_gate([1e4, -1e4, 0.0], [0.0, 0.0, 0.0], temperature=1e-3)
    assert extreme[0] == 1 and 0 <= extreme[1] < 1e-300 and extreme[2] == 0.5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: opener([1.0], [1, 2]), r"sequences must have shape \(1,\)"),
        (lambda: opener([1.0], [1.5]), "sequences must hold integers"),
        (lambda: opener([1.0], fraction=2), "fraction must lie in 0..1"),
        (lambda: opener([[1.0]]), r"entropies must have shape \(rows,\)"),
        (lambda: confidence_gate([1.0], [1.0], temperature=0.0), "temperature must lie in"),
        (lambda: confidence_gate([1.0], [1.0, 2.0]), r"teacher_entropy must have shape \(1,\)"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


def test_names_the_row_that_is_not_finite():
    with pytest.raises(NotFiniteError, match="entropies: row 1 holds"):
        opener([0.0, np.nan])
    with pytest.raises(NotFiniteError, match="student_entropy: row 1 holds"):
        confidence_gate([0.0, np.inf], [0.0, 0.0])
    with pytest.raises(NotFiniteError, match="teacher_entropy: row 0 holds"):
        confidence_gate([0.0], [np.nan])
