"""Clipping and noise: norms without gradients against gradients, the sensitivity of a sum, and the law of the noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import add_noise, clip_factors, embedding_norm_squared, ghost_norm_squared, tied_norm_squared
from fastdistill.errors import ArgumentError


@st.composite
def examples(draw):
    """A batch of examples: what a linear layer was given, and the gradient by what it gave."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, tokens = draw(st.integers(0, 4)), draw(st.integers(0, 6))
    width, vocab = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    inputs, gradients = random.standard_normal((batch, tokens, width)), random.standard_normal((batch, tokens, vocab))
    return inputs, gradients, random.integers(0, vocab, (batch, tokens)).astype(np.int32)


@given(case=examples())
def test_the_ghost_norm_is_that_of_the_gradient(case):
    inputs, gradients, _ = case
    want = [((g.T @ a) ** 2).sum() for a, g in zip(inputs, gradients, strict=True)]
    found = ghost_norm_squared(inputs, gradients)
    np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-13)
    assert (found >= 0).all()
    for a, g, alone in zip(inputs, gradients, found, strict=True):
        np.testing.assert_allclose(ghost_norm_squared(a, g), alone, rtol=1e-12, atol=1e-14)


@given(case=examples())
def test_rows_of_padding_with_no_gradient_change_nothing(case):
    inputs, gradients, _ = case
    longer = [np.concatenate([array, fill], axis=1) for array, fill in ((inputs, inputs[:, :2] + 1), (gradients, 0 * gradients[:, :2]))]  # fmt: skip
    np.testing.assert_allclose(
        ghost_norm_squared(*longer), ghost_norm_squared(inputs, gradients), rtol=1e-12, atol=1e-14
    )


@given(case=examples())
def test_an_embeddings_norm_adds_rows_of_one_token_first(case):
    _, gradients, tokens = case
    for g, t in zip(gradients, tokens, strict=True):
        table = np.zeros((8, g.shape[1]))
        for token, row in zip(t, g, strict=True):
            table[token] += row
        np.testing.assert_allclose(embedding_norm_squared(t, g), (table**2).sum(), rtol=1e-12, atol=1e-14)
    twice = embedding_norm_squared([3, 3], np.ones((2, 1)))
    assert twice == 4  # and not 2


@given(case=examples(), seed=st.integers(0, 99))
def test_a_tied_matrix_has_one_norm_and_not_two(case, seed):
    hidden, gradients, tokens = case
    random = np.random.default_rng(seed)
    for a, g, t in zip(hidden, gradients, tokens, strict=True):
        by_vectors = random.standard_normal(a.shape)
        table = g.T @ a
        for token, row in zip(t, by_vectors, strict=True):
            table[token] += row
        found = tied_norm_squared(t, by_vectors, a, g)
        np.testing.assert_allclose(found, (table**2).sum(), rtol=1e-11, atol=1e-12)
    parts = embedding_norm_squared([0], np.ones((1, 1))) + ghost_norm_squared(np.ones((1, 1)), np.ones((1, 1)))
    assert tied_norm_squared([0], np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1))) == 4 != parts


def test_factors():
    norms = np.array([0.0, 0.5, 1.0, 4.0, np.nan, np.inf, 1e300])
    np.testing.assert_array_equal(clip_factors(norms, 1.0), [1, 1, 1, 0.25, 0, 0, 1e-300])
    np.testing.assert_array_equal(clip_factors(norms, math.inf), [1, 1, 1, 1, 0, 0, 1])
    assert clip_factors([], 1.0).shape == (0,)


@given(case=examples(), bound=st.sampled_from([0.01, 1.0, 100.0]))
def test_clipped_gradients_sum_up_in_a_second_backward_of_weighted_rows(case, bound):
    """And leaving one record out moves the sum by the bound at most."""
    inputs, gradients, _ = case
    each = np.array([g.T @ a for a, g in zip(inputs, gradients, strict=True)]).reshape(
        len(inputs), gradients.shape[2], inputs.shape[2]
    )
    factors = clip_factors(np.sqrt(ghost_norm_squared(inputs, gradients)), bound)
    clipped = factors[:, None, None] * each
    lengths = np.sqrt((clipped**2).sum(axis=(1, 2)))
    assert (lengths <= bound * (1 + 1e-6)).all()  # the ghost norm of a short example is rounded in its square
    weighted = factors[:, None, None] * gradients
    second = np.einsum("btv,btd->vd", weighted, inputs)
    np.testing.assert_allclose(second, clipped.sum(axis=0), rtol=1e-10, atol=1e-12)
    for left_out in range(len(each)):
        apart = second - np.delete(clipped, left_out, axis=0).sum(axis=0)
        assert np.sqrt((apart**2).sum()) <= bound * (1 + 1e-6)


def test_an_example_that_is_not_finite_is_left_out_alone():
    inputs, gradients = np.ones((3, 2, 2)), np.ones((3, 2, 3))
    gradients[1, 0, 0] = np.nan
    factors = clip_factors(np.sqrt(ghost_norm_squared(inputs, gradients)), 1.0)
    assert factors[1] == 0 and (factors[[0, 2]] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_noise_has_its_deviation_and_the_sum_its_divisor(dtype):
    total = np.full((400, 100), 6, dtype)
    found = add_noise(total, 0.5, 3.0, 12.0, np.random.default_rng(0))
    assert found.dtype == dtype and found.shape == total.shape
    noise = (found.astype(np.float64) * 12 - 6) / 1.5
    count = noise.size
    assert abs(noise.mean()) < 4 / math.sqrt(count)
    assert abs((noise**2).sum() - count) < 4 * math.sqrt(2 * count)  # chi-square of so many degrees
    np.testing.assert_array_equal(add_noise(total, 0.5, 0.0, 12.0, np.random.default_rng(0)), 0.5)
    np.testing.assert_array_equal(add_noise(total, math.inf, 0.0, 12.0, np.random.default_rng(0)), 0.5)


def test_a_generator_gives_other_noise_at_every_step():
    draws, zeros = np.random.default_rng(0), np.zeros(5)
    first, second = (add_noise(zeros, 1.0, 1.0, 1.0, draws) for _ in range(2))
    assert (first != second).all()
    assert add_noise(np.array(0.0), 1.0, 1.0, 1.0, draws).shape == ()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: clip_factors([-1.0], 1.0), "norms must be at least 0, got -1.0 of example 0"),
        (lambda: clip_factors([1.0], 0.0), "bound must be above 0"),
        (lambda: clip_factors([1.0], math.nan), "bound must lie in"),
        (lambda: ghost_norm_squared(np.zeros((2, 3)), np.zeros((3, 3))), r"gradients must have shape \(2, any\)"),
        (lambda: ghost_norm_squared(np.zeros(3), np.zeros(3)), r"inputs must have shape \(..., tokens, width\)"),
        (lambda: embedding_norm_squared([1, 2], np.zeros((1, 3))), r"gradients must have shape \(2, width\)"),
        (lambda: tied_norm_squared([5], np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 4))), r"tokens must lie in 0..3, got 5"),
        (lambda: tied_norm_squared([0], np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 4))), r"hidden must have shape \(rows, 3\)"),
        (lambda: add_noise(np.zeros(3), 1.0, 1.0, 1.0, 7), "generator must be a numpy.random.Generator, and no seed, got 7"),
        (lambda: add_noise(np.zeros(3), math.inf, 1.0, 1.0, np.random.default_rng(0)), "bound must be finite where there is noise"),
        (lambda: add_noise(np.zeros(3), 1.0, -1.0, 1.0, np.random.default_rng(0)), "multiplier must lie in"),
        (lambda: add_noise(np.zeros(3), 1.0, 1.0, 0.0, np.random.default_rng(0)), "expected_batch must be above 0"),
        (lambda: add_noise(np.zeros(3, int), 1.0, 1.0, 1.0, np.random.default_rng(0)), "gradient_sum must have dtype float32"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
