"""lookahead_layout against its reference, on every level; who sees whom, by definition; what merging keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import lookahead_layout, tree_layout
from fastdistill.testing import strategies
from fastdistill.testing.cases.fixed_point.lookahead_layout import check


def array(*rows):
    return np.array(rows, np.int32)


def seen_by_definition(layout):
    """Of each place (kind, level or guess, column or index): its row, and the places that it sees, told from the places alone."""
    seed, (levels, columns), (guesses, length) = ("seed", 0, 0), layout.cells.shape, layout.branches.shape
    rows, seen = {seed: 0}, {seed: {seed}}
    for level, column in np.ndindex(levels, columns):
        place = "window", level, column
        rows[place] = int(layout.cells[level, column])
        seen[place] = (
            {seed} | {("window", 0, i) for i in range(column + 1)} | {("window", k, column) for k in range(level + 1)}
        )
    for guess, index in np.ndindex(guesses, length):
        place = "guess", guess, index
        rows[place] = int(layout.branches[guess, index])
        seen[place] = {seed} | {("guess", guess, j) for j in range(index + 1)}
    return rows, seen


@given(case=strategies.lookahead_layout())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.lookahead_layout())
def test_a_place_sees_what_the_definition_says(isa, case):
    layout = lookahead_layout(**case)
    rows, seen = seen_by_definition(layout)
    assert set(rows.values()) == set(range(len(layout.tokens)))  # every row is the row of some place
    assert layout.visible.dtype == bool
    for place, row in rows.items():
        assert set(np.nonzero(layout.visible[row])[0]) == {rows[other] for other in seen[place]}, place


@given(case=strategies.lookahead_layout())
def test_a_place_has_its_token_and_its_position(isa, case):
    window, ngram, guesses, seed = case.values()
    layout = lookahead_layout(**case)
    assert layout.tokens[0] == seed and layout.parents[0] == -1 and layout.positions[0] == 0
    np.testing.assert_array_equal(layout.positions, tree_layout(layout.parents).depths)
    for rows, given_tokens, shape in (
        (layout.cells, window, (ngram - 1, window)),
        (layout.branches, guesses, (guesses, ngram - 1)),
    ):
        if isinstance(given_tokens, np.ndarray):
            np.testing.assert_array_equal(layout.tokens[rows], given_tokens)
        else:
            assert rows.shape == shape and (layout.tokens[rows] == -1).all()
    levels, columns = layout.cells.shape
    np.testing.assert_array_equal(
        layout.positions[layout.cells], 1 + np.add.outer(np.arange(levels), np.arange(columns))
    )
    np.testing.assert_array_equal(
        layout.positions[layout.branches], np.tile(np.arange(1, ngram), (len(layout.branches), 1))
    )


@given(case=strategies.lookahead_layout())
def test_counts_make_a_row_of_each_place_and_tokens_one_of_each_context(isa, case):
    window, _, guesses, _ = case.values()
    layout = lookahead_layout(**case)
    places = [*layout.cells.ravel(), *layout.branches.ravel()]
    firsts = list(dict.fromkeys(places))
    assert firsts == list(range(1, len(layout.tokens)))  # in the order of places, without a gap
    if isinstance(window, np.ndarray) or isinstance(guesses, np.ndarray):
        assert len(set(zip(layout.parents.tolist(), layout.tokens.tolist(), strict=True))) == len(layout.tokens)
    else:
        assert len(places) == len(firsts)


@given(case=strategies.lookahead_layout(kinds=["tokens"]))
def test_different_tokens_are_laid_out_like_counts(isa, case):
    window, ngram, guesses, _ = case.values()
    window = np.resize(window, (ngram - 1, window.shape[1]))
    names = np.arange(window.size + guesses.size, dtype=np.int32)
    apart = lookahead_layout(
        names[: window.size].reshape(window.shape), ngram, names[window.size :].reshape(guesses.shape)
    )
    flat = lookahead_layout(window.shape[1], ngram, len(guesses))
    for ours, meant in zip(apart[1:], flat[1:], strict=True):
        np.testing.assert_array_equal(ours, meant)
    assert apart.tokens.tolist() == [-1, *names]


def accepted(layout, drawn):
    """Tokens of the deepest row that draws lead to: each row on the way has the token drawn by those above it."""
    context, longest = {0: (int(layout.tokens[0]),)}, ()
    for row in range(1, len(layout.tokens)):
        above, token = context.get(int(layout.parents[row])), int(layout.tokens[row])
        if above is not None and drawn(above) == token:
            context[row] = (*above, token)
            longest = max(longest, context[row][1:], key=len)
    return longest, len(context)


@given(
    case=strategies.lookahead_layout(kinds=["tokens"]),
    salt=st.integers(0, 2**32),
    vocabulary=st.sampled_from([1, 2, 3]),
)
def test_flat_and_merged_rows_accept_the_same_tokens(isa, case, salt, vocabulary):
    window, ngram, guesses, _ = case.values()
    names = np.arange(window.size + guesses.size, dtype=np.int32)  # different tokens: nothing is merged
    flat = lookahead_layout(
        names[: window.size].reshape(window.shape), ngram, names[window.size :].reshape(guesses.shape)
    )
    flat = flat._replace(tokens=np.concatenate([[-1], window.ravel(), guesses.ravel()]))
    merged = lookahead_layout(window, ngram, guesses)

    def drawn(context):
        return hash((salt, *context)) % vocabulary

    (ours, followed), (meant, _) = accepted(merged, drawn), accepted(flat, drawn)
    assert ours == meant
    assert followed == 1 + len(ours)  # one way down, no other


def test_few_places(isa):
    nothing = lookahead_layout(0, 5, 0, seed=8)
    assert [part.tolist() for part in nothing[:3]] == [[8], [-1], [0]] and nothing.visible.tolist() == [[True]]
    assert nothing.cells.shape == (4, 0) and nothing.branches.shape == (0, 4)
    assert lookahead_layout(np.empty((0, 9), np.int32), 5, np.empty((0, 4), np.int32)).tokens.tolist() == [-1]
    chain = lookahead_layout(3, 2, 0)
    assert chain.parents.tolist() == [-1, 0, 1, 2] and chain.cells.tolist() == [[1, 2, 3]]
    star = lookahead_layout(0, 2, 3)
    assert star.parents.tolist() == [-1, 0, 0, 0] and star.branches.tolist() == [[1], [2], [3]]
    square = lookahead_layout(2, 3, 1)
    assert square.parents.tolist() == [-1, 0, 1, 1, 2, 0, 5] and square.positions.tolist() == [0, 1, 2, 2, 3, 1, 2]


def test_a_guess_shares_rows_with_the_window_and_with_other_guesses(isa):
    layout = lookahead_layout(array([7, 8, 9], [8, 9, 4]), 4, array([7, 8, 1], [7, 3, 1], [7, 8, 9]), seed=5)
    assert layout.cells.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert layout.branches.tolist() == [[1, 2, 5], [1, 6, 7], [1, 2, 3]]
    assert layout.parents.tolist() == [-1, 0, 1, 2, 3, 2, 1, 6] and layout.tokens.tolist() == [5, 7, 8, 9, 4, 1, 3, 1]


def test_tokens_are_compared_whole(isa):
    tokens = [0, -1, 2**31 - 1, -(2**31), 1 << 8, 1 << 16, 1 << 24]
    layout = lookahead_layout(0, 2, array(*([token] for token in tokens * 2)))
    assert layout.branches.ravel().tolist() == [*range(1, 8)] * 2 and layout.tokens.tolist() == [-1, *tokens]


def test_as_many_rows_as_there_may_be(isa):
    layout = lookahead_layout(1000, 64, 40, seed=3)
    assert len(layout.tokens) == 1 + 63 * 1040 and layout.positions.max() == 1000 + 62
    assert len(lookahead_layout(65535, 2, 0).tokens) == 65536
    alike = lookahead_layout(np.zeros((63, 1000), np.int32), 64, np.zeros((40, 63), np.int32))
    assert alike.parents.tolist() == list(range(-1, 1062))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"window": -1}, r"window must lie in 0\.\.65536, got -1"),
        ({"window": 2.0}, "window must be an integer, got 2.0"),
        ({"window": True}, "window must be an integer, got True"),
        ({"window": np.zeros((2, 3))}, "window must have dtype int32, got float64"),
        ({"window": array(1, 2)}, r"window must have shape \(levels, columns\), got \(2,\)"),
        ({"window": np.zeros((4, 2), np.int32), "guesses": 0}, "window must have at most ngram - 1 = 3 levels, got 4"),
        ({"window": np.zeros((3, 4), np.int32)}, r"tokens both or counts both, .*; got tokens and guesses = 2"),
        ({"ngram": 1}, r"ngram must lie in 2\.\.64, got 1"),
        ({"ngram": 65}, r"ngram must lie in 2\.\.64, got 65"),
        ({"ngram": None}, "ngram must be an integer, got None"),
        ({"guesses": -1}, r"guesses must lie in 0\.\.65536, got -1"),
        ({"guesses": {1, 2, 3}}, "guesses must be an integer"),
        ({"guesses": np.full((2, 3), 2**31), "window": 0}, r"guesses\[0, 0\] must lie in"),
        ({"guesses": np.zeros((2, 4), np.int32), "window": 0}, r"guesses must have shape \(guesses, 3\), got \(2, 4\)"),
        ({"guesses": np.zeros((2, 3), np.int32)}, r"tokens both or counts both, .*; got tokens and window = 2"),
        ({"seed": 2**31}, r"seed must lie in .*, got 2147483648"),
        ({"seed": "a"}, "seed must be an integer, got 'a'"),
        ({"window": 21845, "guesses": 1, "ngram": 4}, "at most 65536 rows with the seed, got 65539"),
    ],
)
def test_refuses(change, text):
    arguments = {"window": 2, "ngram": 4, "guesses": 2, "seed": 1} | change
    with pytest.raises(ArgumentError, match=text):
        lookahead_layout(**arguments)
