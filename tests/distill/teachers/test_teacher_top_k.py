"""A law as its likeliest tokens: against a sort of whole rows, ties and bans, and whole rows again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import TopK, dense_log_probs, teacher_top_k
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import softmax


@st.composite
def batches(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, vocab = draw(st.integers(0, 5)), draw(st.integers(1, 30))
    logits = random.standard_normal((rows, vocab)) * draw(st.sampled_from([0.3, 4.0]))
    if draw(st.booleans()):
        logits = np.rint(logits)  # ties
    logits[:, 1:][random.random(logits[:, 1:].shape) < draw(st.sampled_from([0, 0.5]))] = -np.inf
    return logits.astype(draw(st.sampled_from([np.float32, np.float64]))), draw(st.integers(1, vocab))


@given(batch=batches())
def test_is_the_begin_of_a_sort(batch):
    logits, k = batch
    found = teacher_top_k(logits, k)
    law = softmax(logits.astype(np.float64), 1.0) if len(logits) else logits
    order = np.argsort(-logits, axis=1, kind="stable")  # of equal ones the lowest
    np.testing.assert_array_equal(found.ids, np.sort(order[:, :k], axis=1))
    np.testing.assert_allclose(np.exp(found.log_probs), np.take_along_axis(law, found.ids, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.tail, np.take_along_axis(law, order[:, k:], axis=1).sum(axis=1), rtol=1e-6)
    assert (found.ids.dtype, found.log_probs.dtype, found.tail.dtype) == (np.int32, np.float32, np.float32)


def test_the_tail_of_a_sure_teacher_is_no_rounding():
    logits = np.zeros((1, 1000))
    logits[0, 3] = 60
    np.testing.assert_allclose(teacher_top_k(logits, 2).tail, 998 * np.exp(-60), rtol=1e-6)


@given(batch=batches(), tail=st.sampled_from(["uniform", "drop"]))
def test_whole_rows_are_laws(batch, tail):
    logits, k = batch
    vocab = logits.shape[1]
    top = teacher_top_k(logits, k)
    found = dense_log_probs(top, vocab, tail=tail)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)
    rest = np.ones(found.shape, bool)
    np.put_along_axis(rest, top.ids, False, axis=1)
    if tail == "drop":
        assert (found[rest] == -np.inf).all()
        kept = np.take_along_axis(found, top.ids, axis=1)
        np.testing.assert_allclose(kept, top.log_probs - np.log1p(-top.tail.astype(float))[:, None], atol=1e-5)
    else:
        np.testing.assert_array_equal(np.take_along_axis(found, top.ids, axis=1), top.log_probs)
        want = np.repeat(top.tail / max(1, vocab - k), vocab - k)
        np.testing.assert_allclose(np.exp(found[rest]), want, rtol=1e-5, atol=1e-40)


def test_all_tokens_are_the_law_itself():
    logits = np.random.default_rng(0).standard_normal((4, 9))
    found = dense_log_probs(teacher_top_k(logits, 9), 9)
    np.testing.assert_allclose(np.exp(found), softmax(logits, 1.0), rtol=1e-6)


LAW = np.log([[0.5, 0.25]])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: teacher_top_k(np.zeros((2, 3)), 4), ArgumentError, r"k must lie in 1\.\.3, got 4"),
        (lambda: teacher_top_k(np.zeros((2, 0)), 1), ArgumentError, "logits must have columns"),
        (lambda: teacher_top_k(np.array([[0, 1.0], [np.nan, 0]]), 1), NotFiniteError, "logits: row 1 holds a NaN"),
        (lambda: dense_log_probs(TopK([[0, 9]], LAW, [0.25]), 9), ArgumentError, "ids must be tokens from 0 to 8, .* those of row 0 are not"),
        (lambda: dense_log_probs(TopK([[2, 2]], LAW, [0.25]), 9), ArgumentError, "in a row none twice"),
        (lambda: dense_log_probs(TopK([[1, 2]], LAW + 1, None), 9), ArgumentError, "log-probabilities at temperature 1, .* row 0 has 2.0"),
        (lambda: dense_log_probs(TopK([[1, 2]], LAW, [0.5]), 9), ArgumentError, "row 0 has 0.75, and its tail 0.5"),
        (lambda: dense_log_probs(TopK([[1, 2]], LAW * np.nan, [0.5]), 9), ArgumentError, "row 0 has nan"),
        (lambda: dense_log_probs(TopK([[1, 2]], LAW, [0.25]), 1), ArgumentError, "ids must have 1 to 1 columns, got 2"),
        (lambda: dense_log_probs(TopK([[1, 2]], LAW, [0.25]), 9, tail="none"), ArgumentError, "tail must be one of uniform, drop"),
    ],
)  # fmt: skip
def test_refuses(call, error, text):
    with pytest.raises(error, match=text):
        call()
