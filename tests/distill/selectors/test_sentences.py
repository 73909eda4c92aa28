"""DASD's sentences: tokens in spans by their first byte, geometric means, and whose a sentence is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import span_geomean, teacher_sentences
from fastdistill.errors import ArgumentError, NotFiniteError


@given(seed=st.integers(0, 2**32))
def test_the_score_is_the_geometric_mean_of_the_tokens_that_begin_in_a_span(seed):
    random = np.random.default_rng(seed)
    edges = np.sort(random.integers(0, 40, 6)).reshape(3, 2)  # with gaps, empty ones too
    starts, log_probs = random.integers(0, 40, 15), -random.exponential(1, 15)
    found = span_geomean(log_probs, starts, edges)
    for span, (begin, end) in enumerate(edges):
        inside = [token for token in range(15) if begin <= starts[token] < end]
        want = np.prod(np.exp(log_probs[inside])) ** (1 / max(1, len(inside)))
        np.testing.assert_allclose(found.probabilities[span], want, rtol=1e-12)
        assert found.tokens[span] == len(inside)
    assert ((found.probabilities > 0) & (found.probabilities <= 1)).all()


def test_two_tokenizers_are_compared_on_the_same_spans():
    """The same log-probability over as many tokens is the same score, wherever the tokens are cut; a token over an edge is the first's."""
    spans = [[0, 5], [5, 9]]
    one = span_geomean([-1.0, -3.0, -2.0], [0, 4, 6], spans)
    other = span_geomean([-2.5, -1.5, -2.0], [0, 2, 5], spans)
    np.testing.assert_allclose(one.probabilities, np.exp([-2, -2]), rtol=1e-15)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    np.testing.assert_array_equal(span_geomean([-1.0], [7], [[3, 3], [3, 9]]).tokens, [0, 1])
    nothing = span_geomean([-1.0], [7], np.zeros((0, 2), int))
    assert nothing.probabilities.shape == nothing.tokens.shape == (0,)
    silent = span_geomean([], [], [[0, 3]])
    assert (
        silent.probabilities.tolist() == [1.0]
        and silent.probabilities.dtype == np.float64
        and silent.tokens.tolist() == [0]
    )


def test_whose_a_sentence_is():
    teacher, student = np.array([0.9, 0.5, 0.25, 0.75]), np.array([0.5, 0.5, 0.75, 0.5])
    found = teacher_sentences(teacher, student, [4, 4, 9, 9], threshold=0.25)
    np.testing.assert_array_equal(found.kinds, [1, 0, -1, 1])
    np.testing.assert_array_equal(found.shares, [0.5, 0.5])
    swapped = teacher_sentences(student, teacher, [4, 4, 9, 9], threshold=0.25)
    np.testing.assert_array_equal(swapped.kinds, -found.kinds)
    assert not teacher_sentences(teacher, teacher).kinds.any()
    weighted = teacher_sentences(teacher, student, [4, 4, 9, 9], threshold=0.25, tokens=[3, 2, 1, 1], least_tokens=2)
    np.testing.assert_array_equal(weighted.kinds, [1, 0, 0, 0])
    np.testing.assert_array_equal(weighted.shares, [3 / 5, 0])
    assert teacher_sentences([], []).shares.shape == (0,)


@given(seed=st.integers(0, 2**32))
def test_the_share_falls_with_the_threshold(seed):
    random = np.random.default_rng(seed)
    teacher, student = random.random((2, 9))
    tokens = random.integers(0, 5, 9)
    shares = [teacher_sentences(teacher, student, threshold=t, tokens=tokens).shares[0] for t in (0.01, 0.2, 0.5, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] >= 0 and shares[0] <= 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: span_geomean([0.5], [0], [[0, 1]]), "log_probs must be at most 0, got 0.5 of token 0"),
        (lambda: span_geomean([-1.0], [0, 1], [[0, 1]]), r"starts must have shape \(1,\)"),
        (lambda: span_geomean([-1.0], [0], [0, 1]), r"spans must have shape \(spans, 2\)"),
        (lambda: span_geomean([-1.0], [0], [[0, 2], [1, 3]]), "spans must ascend without overlap; span 1 does not"),
        (lambda: span_geomean([-1.0], [0], [[0, 2], [4, 3]]), "spans must ascend without overlap; span 1 does not"),
        (lambda: teacher_sentences([1.5], [0.5]), r"teacher must hold probabilities, 0..1"),
        (lambda: teacher_sentences([0.5], [-0.5]), r"student must hold probabilities, 0..1"),
        (lambda: teacher_sentences([0.5], [0.5], threshold=0.0), "threshold must lie in"),
        (lambda: teacher_sentences([0.5], [0.5], tokens=[-1]), "tokens must be at least 0"),
        (lambda: teacher_sentences([0.5], [0.5], least_tokens=0.5), "least_tokens must be an integer"),
        (lambda: teacher_sentences([0.5], [0.5, 1.0]), r"student must have shape \(1,\)"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


def test_names_the_token_that_is_not_finite():
    with pytest.raises(NotFiniteError, match="log_probs: row 1 holds"):
        span_geomean([-1.0, -np.inf], [0, 1], [[0, 2]])
    with pytest.raises(NotFiniteError, match="student: row 0 holds"):
        teacher_sentences([0.5], [np.nan])
