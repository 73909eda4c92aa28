"""Vocabularies that differ: what is cut is gone before the softmax and is counted, and gradients find their way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import (
    common_vocabulary,
    forward_kl,
    inverse_token_map,
    mapped_teacher,
    pad_columns,
    scatter_columns,
)
from fastdistill.errors import ArgumentError
from fastdistill.kernels import softmax


@st.composite
def batches(draw):
    """Logits of different widths, some of them banned."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, widths = draw(st.integers(1, 5)), [draw(st.integers(1, 40)) for _ in range(2)]
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    pair = [(random.standard_normal((rows, width)) * 3).astype(dtype) for width in widths]
    for logits in pair:
        logits[:, 1:][random.random(logits[:, 1:].shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
    return pair


@given(batch=batches())
def test_the_cut_is_before_the_softmax_and_what_it_cost_is_said(batch):
    student, teacher = batch
    found = common_vocabulary(student, teacher)
    width = min(student.shape[1], teacher.shape[1])
    for logits, kept, lost in (
        (student, found.student, found.student_lost),
        (teacher, found.teacher, found.teacher_lost),
    ):
        assert kept.dtype == logits.dtype and kept.flags.c_contiguous and kept.shape == (len(logits), width)
        whole = softmax(logits.astype(np.float64), 1.0)
        np.testing.assert_allclose(lost, whole[:, width:].sum(axis=1), atol=1e-14)
        np.testing.assert_allclose(
            softmax(kept.astype(np.float64), 1.0), whole[:, :width] / (1 - lost)[:, None], atol=1e-9
        )


def test_a_teacher_that_is_sure_of_a_token_which_the_student_lacks():
    teacher = np.zeros((2, 5))
    teacher[0, 4] = np.log(12)  # 12 of 16
    found = common_vocabulary(np.zeros((2, 3)), teacher)
    np.testing.assert_allclose(found.teacher_lost, [13 / 16, 2 / 5])
    np.testing.assert_array_equal(found.student_lost, [0, 0])
    np.testing.assert_array_equal(found.teacher, np.zeros((2, 3)))


def test_nothing_is_copied_where_nothing_is_cut():
    student, teacher = np.zeros((2, 3)), np.zeros((2, 4))
    assert np.shares_memory(common_vocabulary(student, teacher).student, student)


def test_a_row_that_is_not_finite_has_no_lost_mass_and_the_others_do():
    teacher = np.zeros((3, 4))
    teacher[1, 0] = np.nan
    np.testing.assert_array_equal(common_vocabulary(np.zeros((3, 2)), teacher).teacher_lost, [0.5, np.nan, 0.5])


@given(batch=batches(), seed=st.integers(0, 2**32))
def test_padding_is_the_adjoint_of_the_cut(batch, seed):
    """The derivative by the whole rows of what is computed from the cut ones."""
    student, teacher = (logits.astype(np.float64) for logits in batch)
    found = common_vocabulary(student, teacher)
    along = np.random.default_rng(seed).standard_normal(found.student.shape)
    padded = pad_columns(along, student.shape[1])
    finite = np.where(np.isfinite(student), student, 0)
    cut = common_vocabulary(finite, teacher).student
    np.testing.assert_allclose((padded * finite).sum(), (along * cut).sum(), rtol=1e-9, atol=1e-9)
    assert not padded[:, found.student.shape[1] :].any()


@given(batch=batches())
def test_an_objective_of_padded_rows_and_its_gradient_by_the_whole_student(batch):
    """Finite differences of the whole rows' logits: what was cut has no part in it."""
    student, teacher = (np.where(np.isfinite(logits), logits, -3).astype(np.float64) for logits in batch)

    def objective(logits):
        both = common_vocabulary(logits, teacher)
        return forward_kl(both.student, both.teacher)

    loss = objective(student)
    gradient = pad_columns(loss.gradient, student.shape[1])
    along, step = np.random.default_rng(0).standard_normal(student.shape), 1e-6
    slope = (objective(student + step * along).value - objective(student - step * along).value) / (2 * step)
    np.testing.assert_allclose((gradient * along).sum(), slope, rtol=1e-6, atol=1e-7)


@st.composite
def maps(draw):
    """Logits of a teacher, and a map to some of its tokens in any order, some of the student's missing."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, vocab = draw(st.integers(0, 4)), draw(st.integers(1, 30))
    tokens = random.permutation(vocab)[: draw(st.integers(1, vocab))].astype(np.int32)
    missing = np.full(draw(st.integers(0, 3)), -1, np.int32)
    mixed = random.permutation(np.concatenate([tokens, missing]))
    return random.standard_normal((rows, vocab)) * 2, mixed


@given(case=maps())
def test_a_mapped_teacher_gives_each_token_what_the_teacher_gave_it(case):
    teacher, tokens = case
    mapped = mapped_teacher(teacher, tokens)
    law = softmax(teacher, 1.0)
    for token, to in enumerate(tokens):
        want = teacher[:, to] if to >= 0 else np.full(len(teacher), -np.inf)
        np.testing.assert_array_equal(mapped.teacher[:, token], want)
    kept = law[:, tokens[tokens >= 0]].sum(axis=1)
    np.testing.assert_allclose(mapped.lost, 1 - kept, atol=1e-13)


@given(case=maps())
def test_scattering_is_the_adjoint_of_the_gather_and_the_inverse_map_its_inverse(case):
    teacher, tokens = case
    along = np.random.default_rng(0).standard_normal((len(teacher), len(tokens)))
    scattered = scatter_columns(along, tokens, teacher.shape[1])
    mapped = mapped_teacher(teacher, tokens).teacher
    np.testing.assert_allclose((scattered * teacher).sum(), (along * np.where(tokens >= 0, mapped, 0)).sum(), atol=1e-9)
    inverse = inverse_token_map(tokens, teacher.shape[1])
    for token, to in enumerate(tokens):
        assert to < 0 or inverse[to] == token
    assert (inverse >= 0).sum() == (tokens >= 0).sum() and inverse.dtype == np.int32


def test_a_map_of_all_tokens_in_order_changes_nothing():
    teacher = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    found = mapped_teacher(teacher, range(7))
    np.testing.assert_array_equal(found.teacher, teacher)
    np.testing.assert_array_equal(found.lost, 0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: common_vocabulary(np.zeros((2, 3)), np.zeros((3, 3))), r"teacher must have shape \(2, teacher_vocab\), got \(3, 3\)"),
        (lambda: common_vocabulary(np.zeros((2, 3)), np.zeros((2, 0))), "must have columns, got 3 and 0"),
        (lambda: common_vocabulary(np.zeros((2, 3), np.float16), np.zeros((2, 3))), "student must have dtype float32 or float64, got float16"),
        (lambda: mapped_teacher(np.zeros((2, 3)), [0, 3]), "token_map must hold tokens from 0 to 2, or -1 for none, got 3 at 1"),
        (lambda: mapped_teacher(np.zeros((2, 3)), [0, -2]), "got -2 at 1"),
        (lambda: mapped_teacher(np.zeros((2, 3)), [2, 0, -1, -1, 2]), "lead to no token twice, got 2 at 0 and at 4: its probability"),
        (lambda: mapped_teacher(np.zeros((2, 3)), [-1]), "one of the teacher's tokens at least"),
        (lambda: pad_columns(np.zeros((2, 3)), 2), r"vocab must lie in 3\.\."),
        (lambda: scatter_columns(np.zeros((2, 3)), [0, 1], 9), "an entry for each of gradient's 3 columns, got 2"),
        (lambda: forward_kl(np.zeros((2, 3)), np.zeros((2, 4))), "got 3 and 4 columns: pass both through common_vocabulary"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
