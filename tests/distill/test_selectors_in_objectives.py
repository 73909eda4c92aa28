"""Selectors and objectives together: what is left out has no part in value or gradient, however a batch is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import (
    clip_rows,
    confidence_gate,
    entropy,
    expand_groups,
    forward_kl,
    jsd,
    nested_answer_masks,
    opener,
    pack_pairs,
    pass_rate_weights,
    reference_gap,
    semi_autoregressive_masks,
    top_fraction,
)


def batch(seed=0, rows=12, vocab=7):
    return np.random.default_rng(seed).standard_normal((3, rows, vocab)) * 2


def rows_of(student, teacher):
    return forward_kl(student, teacher, gradient=False).rows


def test_a_fraction_of_one_is_the_plain_objective_bit_by_bit():
    student, teacher, reference = batch()
    weights = reference_gap(rows_of(student, teacher), rows_of(reference, teacher), 1.0)
    got, want = forward_kl(student, teacher, weights=weights), forward_kl(student, teacher)
    assert got.value == want.value and got.gradient.tobytes() == want.gradient.tobytes()
    uniform = expand_groups(pass_rate_weights([1, 2, 3], 4, 0, 0), np.arange(12) % 3, mean=False)
    assert forward_kl(student, teacher, weights=uniform).gradient.tobytes() == want.gradient.tobytes()


@pytest.mark.parametrize("method", ["quantile", "exact"])
def test_rows_that_are_not_selected_get_no_gradient_and_a_selection_ignores_constants(method):
    student, teacher, reference = batch(1)
    weights = reference_gap(rows_of(student, teacher), rows_of(reference, teacher), 0.4, method=method)
    assert 0 < (weights > 0).sum() < 12
    found = forward_kl(student, teacher, weights=weights)
    np.testing.assert_array_equal((found.gradient != 0).any(axis=1), weights > 0)
    constants = np.arange(12.0)[:, None]
    moved = [rows_of(z + constants, teacher - constants) for z in (student, reference)]
    np.testing.assert_array_equal(reference_gap(*moved, 0.4, method=method), weights)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_gradient_is_that_of_the_value_with_the_selection_held(temperature):
    student, teacher, reference = batch(2)
    weights = reference_gap(rows_of(student, teacher), rows_of(reference, teacher), 0.4)
    weights = clip_rows(rows_of(student, teacher), quantile=0.9, weights=weights)
    weights = confidence_gate(
        entropy(student, gradient=False).rows, entropy(teacher, gradient=False).rows, weights=weights
    )
    along, step = np.random.default_rng(3).standard_normal(student.shape), 1e-5

    def value(z):
        return jsd(z, teacher, weights=weights, temperature=temperature).value

    slope = (value(student + step * along) - value(student - step * along)) / (2 * step)
    found = jsd(student, teacher, weights=weights, temperature=temperature).gradient
    np.testing.assert_allclose((found * along).sum(), slope, atol=1e-9)


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 12))
def test_any_cut_into_micro_batches_has_one_gradient(seed, cut):
    """Selected over the whole batch, or by sequence; then cut."""
    student, teacher, _ = batch(seed)
    sequences = np.arange(12) // 4
    padding = (np.random.default_rng(seed).random(12) < 0.8).astype(float)
    teacher[padding == 0] = np.nan
    h = entropy(student, weights=padding, gradient=False).rows
    for weights in (
        top_fraction(h, 0.5, weights=padding),
        opener(h, sequences, 0.5, weights=padding),
        expand_groups(pass_rate_weights([1, 2, 4], 4), sequences, weights=padding),
    ):
        whole = forward_kl(student, teacher, weights=weights)
        parts = [
            forward_kl(student[part], teacher[part], weights=weights[part], total_weight=weights.sum())
            for part in (slice(0, cut), slice(cut, 12))
        ]
        np.testing.assert_allclose(sum(part.value for part in parts), whole.value, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(
            np.concatenate([part.gradient for part in parts]), whole.gradient, rtol=1e-12, atol=1e-15
        )


def test_the_gradient_is_linear_in_a_problems_weight():
    student, teacher, _ = batch(4)
    groups = np.arange(12) // 6
    one, other = (
        forward_kl(student, teacher, weights=expand_groups([scale, 1.0], groups), reduction="sum").gradient for scale in (1.0, 2.0)
    )  # fmt: skip
    np.testing.assert_array_equal(other[:6], 2 * one[:6])
    np.testing.assert_array_equal(other[6:], one[6:])


def test_nothing_selected_is_nothing_learnt():
    student, teacher, _ = batch(5)
    for weights in (top_fraction(np.zeros(12), 0.0), expand_groups(pass_rate_weights([0, 4], 4), np.arange(12) % 2)):
        found = forward_kl(student, teacher, weights=weights)
        assert found.value == 0 and not found.gradient.any()


def test_views_have_gradients_on_their_own_tokens_alone():
    student, teacher, _ = batch(6, rows=2 * 20)
    views = semi_autoregressive_masks([4, 2], [20, 15], 0, block=8)
    support = []
    for counted in views.counted:
        found = forward_kl(student, teacher, weights=counted.reshape(-1).astype(float))
        support.append((found.gradient != 0).any(axis=1).reshape(2, 20))
    np.testing.assert_array_equal(support, views.counted)
    nested = nested_answer_masks([4, 2], [20, 15], 0)
    both = forward_kl(student, student, weights=nested.student.reshape(-1).astype(float))
    assert abs(both.value) < 1e-15  # one model, one view: nothing to learn


def test_converged_rows_teach_and_get_no_gradient():
    random = np.random.default_rng(7)
    pairs = random.integers(0, 3, (3, 2, 4))
    packed = pack_pairs([1, 2], pairs)
    logits = random.standard_normal((len(packed.tokens), 5))
    found = forward_kl(logits[packed.student_rows], logits[packed.teacher_rows])
    gradient = np.zeros_like(logits)
    gradient[packed.student_rows] = found.gradient
    assert not gradient[packed.streams != 1].any() and gradient.any()
    same = pack_pairs([1, 2], np.stack([pairs[:, 1], pairs[:, 1]], axis=1))
    nothing = forward_kl(logits[same.student_rows], logits[same.teacher_rows])
    assert nothing.value == 0 and nothing.gradient.shape == (0, 5)
