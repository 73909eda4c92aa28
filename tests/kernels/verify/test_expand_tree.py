"""expand_tree against its reference, on every level; order and ties; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import expand_tree, row_statistics, set_isa
from fastdistill.testing import strategies
from fastdistill.testing.cases.verify.expand_tree import check


@given(case=strategies.expand_tree())
def test_is_the_order_of_its_scores(isa, case):
    """Scores of two roundings over row_statistics; then a stable sort, bit for bit."""
    z, scores, count = case.values()
    with np.errstate(invalid="ignore"):
        total = (scores[:, None] + (z - row_statistics(z).log_sum_exp[:, None])).ravel()
    order = np.argsort(-total, kind="stable")
    order = order[total[order] > -np.inf][:count]
    got = expand_tree(z, scores, count)
    np.testing.assert_array_equal(got.rows * z.shape[1] + got.tokens, order)
    np.testing.assert_array_equal(got.scores, total[order])
    assert [part.dtype for part in got] == [np.int32, np.int32, np.float32]


@given(case=strategies.expand_tree())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.expand_tree(), threads=st.integers(2, 4))
def test_same_bits_on_every_level_and_thread_count(isa, case, threads):
    got = expand_tree(**case, threads=threads)
    set_isa("scalar")
    want = expand_tree(**case)
    set_isa(isa)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours.view(np.int32), theirs.view(np.int32))


def test_ties_go_to_the_lowest_row_then_token(isa):
    z = np.zeros((3, 40), np.float32)
    found = expand_tree(z, np.array([-1, 0, 0], np.float32), 42)
    assert found.rows.tolist() == [1] * 40 + [2] * 2 and found.tokens.tolist() == [*range(40), 0, 1]
    np.testing.assert_allclose(found.scores, -np.log(40), rtol=2.0**-22)


def test_one_certain_token_keeps_its_parents_score(isa):
    """A log probability of 0: the child ties with its parent, which is why trees are built parent first."""
    z = np.full((1, 100), -np.inf, np.float32)
    z[0, 42] = 3.5
    found = expand_tree(z, np.array([-2.25], np.float32), 10)
    assert [part.tolist() for part in found] == [[42], [0], [-2.25]]


def test_what_overflows_is_no_candidate(isa):
    z = np.array([[3e38, -3e38, 3e38]], np.float32)
    assert expand_tree(z, np.zeros(1, np.float32), 9).tokens.tolist() == [0, 2]


@pytest.mark.parametrize(("row", "column", "bad"), [(0, 0, np.nan), (1, 39, np.inf), (1, 7, np.nan)])
def test_reports_what_is_not_finite(isa, row, column, bad):
    z, scores = np.zeros((2, 40), np.float32), np.zeros(2, np.float32)
    z[row, column] = bad
    with pytest.raises(NotFiniteError, match="expand_tree"):
        expand_tree(z, scores, 3)
    z[row] = -np.inf
    with pytest.raises(NotFiniteError, match="expand_tree"):
        expand_tree(z, scores, 3)
    for bad_score in (np.nan, np.inf, -np.inf):
        scores[row] = bad_score
        with pytest.raises(NotFiniteError, match="expand_tree"):
            expand_tree(np.zeros((2, 40), np.float32), scores, 3)


def test_no_frontier(isa):
    assert [part.size for part in expand_tree(np.empty((0, 9), np.float32), np.empty(0, np.float32), 3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"logits": np.zeros((2, 3))}, "logits must have dtype float32, got float64"),
        ({"logits": np.zeros((2, 0), np.float32)}, r"logits must have at least one column .*, got shape \(2, 0\)"),
        ({"scores": np.zeros(3, np.float32)}, r"scores must have shape \(2,\), got \(3,\)"),
        ({"count": 0}, r"count must lie in 1\.\..*, got 0"),
        ({"threads": 0}, r"threads must lie in 1\.\."),
    ],
)
def test_refuses(change, text):
    good = {"logits": np.zeros((2, 40), np.float32), "scores": np.zeros(2, np.float32), "count": 4}
    with pytest.raises(ArgumentError, match=text):
        expand_tree(**(good | change))
