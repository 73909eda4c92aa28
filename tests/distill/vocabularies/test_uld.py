"""ULD: the distance of sorted probabilities against exact transport on a line, its gradient, and what it cannot see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import uld_loss
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import softmax
from fastdistill.transport import wasserstein_1d


@st.composite
def batches(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, widths = draw(st.integers(1, 5)), [draw(st.sampled_from([1, 2, 5, 17, 40])) for _ in range(2)]
    pair = [random.standard_normal((rows, width)) * draw(st.sampled_from([0.5, 4.0])) for width in widths]
    for logits in pair:
        logits[:, 1:][random.random(logits[:, 1:].shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
    return pair


@given(batch=batches(), temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_is_exact_transport_of_the_probabilities_on_a_line(batch, temperature):
    """Of equal masses at each probability, the shorter list filled up with zeros."""
    student, teacher = batch
    wide = max(student.shape[1], teacher.shape[1])
    q, p = (np.pad(softmax(logits, temperature), ((0, 0), (0, wide - logits.shape[1]))) for logits in batch)
    found = uld_loss(student, teacher, temperature=temperature)
    np.testing.assert_allclose(found.rows, wide * wasserstein_1d(q, p), atol=1e-12)
    np.testing.assert_allclose(found.value, found.rows.mean(), rtol=1e-12)
    assert (found.rows <= 2 + 1e-12).all() and found.gradient.shape == student.shape


@given(batch=batches(), temperature=st.sampled_from([0.5, 1.0, 2.0]), seed=st.integers(0, 2**32))
def test_gradient_is_the_derivative(batch, temperature, seed):
    student, teacher = batch
    finite = np.isfinite(student)
    random = np.random.default_rng(seed)
    along, weights = np.where(finite, random.standard_normal(student.shape), 0), random.random(len(student))
    found = uld_loss(student, teacher, temperature=temperature, weights=weights)
    step = 1e-6
    higher, lower = (
        uld_loss(student + sign * step * along, teacher, temperature=temperature, weights=weights).value
        for sign in (1, -1)
    )
    # A kink within the step, where two probabilities cross, costs less than the step times the slope: 2 / T a row.
    np.testing.assert_allclose((found.gradient * along).sum(), (higher - lower) / (2 * step), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.gradient.sum(axis=1), 0, atol=1e-13)
    assert not found.gradient[~finite].any()


@given(batch=batches(), seed=st.integers(0, 2**32))
def test_does_not_see_which_token_is_which(batch, seed):
    """Columns of either side in another order: the same value, the gradient in the student's order."""
    student, teacher = batch
    random = np.random.default_rng(seed)
    order, other = random.permutation(student.shape[1]), random.permutation(teacher.shape[1])
    want = uld_loss(student, teacher)
    found = uld_loss(np.ascontiguousarray(student[:, order]), np.ascontiguousarray(teacher[:, other]))
    np.testing.assert_allclose(found.value, want.value, atol=1e-13)
    finite = [row for row in range(len(student)) if len(np.unique(student[row])) == student.shape[1]]
    np.testing.assert_allclose(found.gradient[finite], want.gradient[finite][:, order], atol=1e-13)


def test_a_known_pair():
    student, teacher = np.log([[0.2, 0.8]]), np.log([[0.1, 0.6, 0.3]])
    found = uld_loss(student, teacher)
    np.testing.assert_allclose(found.value, 0.2 + 0.1 + 0.1)
    # |0.8 - 0.6| falls and |0.2 - 0.3| rises as q moves to the second token: slopes 1 and -1, through the softmax.
    np.testing.assert_allclose(found.gradient, [[0.2 * (-1 - 0.6), 0.8 * (1 - 0.6)]])


def test_the_same_probabilities_cost_nothing_and_have_no_gradient():
    student = np.random.default_rng(0).standard_normal((3, 8))
    found = uld_loss(student, np.ascontiguousarray(student[:, ::-1]))
    np.testing.assert_allclose(found.rows, 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_weight_0_are_not_read(dtype):
    random = np.random.default_rng(1)
    student, teacher = (random.standard_normal((4, width)).astype(dtype) for width in (5, 9))
    weights = np.array([1, 0, 2, 0.0])
    want = uld_loss(student[::2].copy(), teacher[::2].copy(), weights=weights[::2])
    student[1] = teacher[3] = np.nan
    found = uld_loss(student, teacher, weights=weights)
    assert found.value == want.value and found.gradient.dtype == dtype
    np.testing.assert_array_equal(found.gradient[::2], want.gradient)
    assert not found.gradient[1::2].any() and not found.rows[1::2].any()


def test_parts_sum_up_to_the_whole_and_nothing_is_0():
    random = np.random.default_rng(2)
    student, teacher, weights = random.standard_normal((5, 6)), random.standard_normal((5, 4)), random.random(5)
    whole = uld_loss(student, teacher, weights=weights)
    parts = [
        uld_loss(student[part], teacher[part], weights=weights[part], total_weight=weights.sum())
        for part in (slice(0, 1), slice(1, 5))
    ]
    np.testing.assert_allclose(sum(part.value for part in parts), whole.value, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([part.gradient for part in parts]), whole.gradient, rtol=1e-12)
    for empty in (uld_loss(student[:0], teacher[:0]), uld_loss(student, teacher, weights=np.zeros(5))):
        assert empty.value == 0 and not empty.gradient.any()
    assert uld_loss(student, teacher, gradient=False).gradient is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: uld_loss(np.zeros((2, 3)), np.zeros((3, 3))), ArgumentError, r"teacher must have shape \(2, teacher_vocab\)"),
        (lambda: uld_loss(np.zeros((2, 0)), np.zeros((2, 3))), ArgumentError, "must have columns, got 0 and 3"),
        (lambda: uld_loss(np.zeros((2, 3)), np.zeros((2, 3)), temperature=0), ArgumentError, "temperature must lie in"),
        (lambda: uld_loss(np.zeros((1, 3)), np.array([[0, np.nan]])), NotFiniteError, "teacher: row 0 holds a NaN"),
        (lambda: uld_loss(np.full((1, 3), -np.inf), np.zeros((1, 3))), NotFiniteError, "student: row 0 holds .* nothing but -inf"),
    ],
)  # fmt: skip
def test_refuses(call, error, text):
    with pytest.raises(error, match=text):
        call()
