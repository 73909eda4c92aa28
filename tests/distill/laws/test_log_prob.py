"""Log-probabilities of tokens and the way from them to logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import log_prob_gradient, token_log_prob
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


@given(seed=st.integers(0, 2**32), temperature=st.sampled_from([0.5, 1.0, 2.0]), shift=st.sampled_from([0.0, 1e4]))
def test_is_the_logarithm_of_the_softmax(seed, temperature, shift):
    logits = np.random.default_rng(seed).standard_normal((4, 6)) * 3
    tokens = np.random.default_rng(seed).integers(0, 6, 4)
    law = np.exp(logits / temperature)
    law /= law.sum(axis=1, keepdims=True)
    found = token_log_prob(logits + shift, tokens, temperature=temperature)
    np.testing.assert_allclose(found, np.log(law[np.arange(4), tokens]), atol=1e-13 * max(1, shift), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gradient_is_the_derivative(temperature):
    logits = np.random.default_rng(0).standard_normal((4, 6))
    tokens, coefficients = [1, 5, -100, 0], np.array([0.3, -2.0, 7.0, 0.0])

    def value(at):
        return (coefficients * token_log_prob(at, tokens, temperature=temperature)).sum()

    found = log_prob_gradient(logits, tokens, coefficients, temperature=temperature)
    np.testing.assert_allclose(found, slopes(value, logits), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-15)
    single = log_prob_gradient(logits.astype(np.float32), tokens, coefficients, temperature=temperature)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, found, atol=1e-6)


def test_bans_and_rows_that_are_not_read():
    logits = np.array([[0.0, -np.inf, 0.0], [np.nan, 0, 0], [0, 0, np.nan]])
    np.testing.assert_allclose(token_log_prob(logits[:2], [1, -100]), [-np.inf, 0])
    np.testing.assert_allclose(token_log_prob(logits[:2], [0, -100]), [-np.log(2), 0])
    found = log_prob_gradient(logits, [0, -100, 1], [1.0, np.nan, 0.0])
    np.testing.assert_allclose(found, [[0.5, 0, -0.5], [0, 0, 0], [0, 0, 0]], atol=1e-15)
    assert token_log_prob(np.zeros((0, 3)), []).shape == (0,)
    assert log_prob_gradient(np.zeros((0, 3)), [], []).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: token_log_prob(np.zeros((2, 3)), [0, 3]), ArgumentError, "tokens must lie in 0..2, or be -100, got 3 in row 1"),
        (lambda: token_log_prob(np.zeros((2, 3)), [-1, 0]), ArgumentError, "tokens must lie in 0..2, or be -100, got -1 in row 0"),
        (lambda: token_log_prob(np.zeros((2, 0)), [0, 0]), ArgumentError, "logits must have at least one column"),
        (lambda: token_log_prob(np.zeros((2, 3)), [0, 1], temperature=0), ArgumentError, "temperature must lie in"),
        (lambda: token_log_prob(np.array([[0, 0], [np.inf, 0]]), [0, 1]), NotFiniteError, "logits: row 1 holds"),
        (lambda: log_prob_gradient(np.zeros((2, 3)), [0, 1], [0.0]), ArgumentError, r"coefficients must have shape \(2,\)"),
        (lambda: log_prob_gradient(np.zeros((2, 3)), [0, 1], [0, np.inf]), NotFiniteError, "coefficients: row 1 holds"),
        (lambda: log_prob_gradient(np.full((2, 3), -np.inf), [0, 1], [1, 1]), NotFiniteError, "student: row 0 holds"),
    ],
)  # fmt: skip
def test_refuses(call, error, text):
    with pytest.raises(error, match=text):
        call()
