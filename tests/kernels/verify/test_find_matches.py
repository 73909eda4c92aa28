"""find_matches against two loops, on every level; what a match promises; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import find_matches
from fastdistill.testing import strategies
from fastdistill.testing.cases.verify.find_matches import check


@given(case=strategies.find_matches())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.find_matches())
def test_what_stands_before_a_start_is_the_end(isa, case):
    tokens, max_match, min_match, _ = case.values()
    for start, length in zip(*find_matches(**case), strict=True):
        assert 0 < start < len(tokens) and min_match <= length <= max_match
        np.testing.assert_array_equal(tokens[start - length : start], tokens[len(tokens) - length :])


@given(case=strategies.find_matches(), fewer=st.integers(1, 16))
def test_the_best_few_are_the_first_of_the_best_many(isa, case, fewer):
    tokens, max_match, min_match, count = case.values()
    many, few = find_matches(**case), find_matches(tokens, max_match, min_match, min(fewer, count))
    for first, all_of_them in zip(few, many, strict=True):
        np.testing.assert_array_equal(first, all_of_them[: len(first)])


@given(case=strategies.find_matches())
def test_tokens_are_compared_whole(isa, case):
    """Any renaming of tokens keeps the matches; these differ in every byte and in the sign."""
    tokens, *numbers = case.values()
    names = np.array([7, -1, 2**31 - 1, -(2**31)] + [i << 24 | i << 7 for i in range(60)], np.int32)
    for got, want in zip(find_matches(names[tokens + 1], *numbers), find_matches(**case), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_text_of_one_token_matches_itself_one_earlier(isa):
    found = find_matches(np.zeros(1000, np.int32), 2000, count=3)
    assert found.starts.tolist() == [999, 998, 997] and found.lengths.tolist() == [999, 998, 997]
    found = find_matches(np.zeros(1000, np.int32), 5, count=3)
    assert found.starts.tolist() == [999, 998, 997] and found.lengths.tolist() == [5, 5, 5]


def test_the_longest_wins_then_the_latest(isa):
    #               0  1  2  3  4  5  6  7  8  9
    text = np.array([1, 2, 3, 9, 2, 3, 9, 1, 2, 3], np.int32)
    assert [list(part) for part in find_matches(text, 8, count=16)] == [[3, 6], [3, 2]]
    assert [list(part) for part in find_matches(text, 2, count=16)] == [[6, 3], [2, 2]]
    assert [list(part) for part in find_matches(text, 8, min_match=3)] == [[3], [3]]
    assert [len(part) for part in find_matches(text, 8, min_match=4)] == [0, 0]


@given(case=strategies.find_matches(), before=st.integers(0, 3), after=st.integers(1, 20))
def test_reads_the_text_and_nothing_beside_it(isa, case, before, after):
    """The same text between tokens that would continue every match."""
    tokens, *numbers = case.values()
    guarded = np.concatenate([np.resize(tokens, before), tokens, np.resize(tokens[-1:], after if len(tokens) else 0)])
    inside = guarded.astype(np.int32)[before : before + len(tokens)] if len(tokens) else tokens
    for got, want in zip(find_matches(inside, *numbers), find_matches(**case), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tokens": [1, 2**31]}, r"tokens\[1\] must lie in"),
        ({"tokens": np.zeros(3)}, "tokens must have dtype int32, got float64"),
        ({"tokens": np.zeros((2, 3), np.int32)}, r"tokens must have shape \(n,\), got \(2, 3\)"),
        ({"min_match": 0}, r"min_match must lie in 1\.\."),
        ({"max_match": 2, "min_match": 3}, r"max_match must lie in 3\.\..*, got 2"),
        ({"max_match": 2.0}, "max_match must be an integer, got 2.0"),
        ({"count": 0}, r"count must lie in 1\.\.16, got 0"),
        ({"count": 17}, r"count must lie in 1\.\.16, got 17"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        find_matches(**({"tokens": np.zeros(4, np.int32), "max_match": 3} | change))
