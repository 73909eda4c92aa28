"""Static trees: against every tree there is, where that can be counted; what they promise; edges."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.decode.trees import expected_tokens, static_tree
from fastdistill.errors import ArgumentError


def rates(random, shape, sorted_ranks):
    """Rows that sum to 1 or less."""
    table = random.dirichlet(np.ones(shape[-1] + 1), shape[:-1])[..., :-1]
    return -np.sort(-table, axis=-1) if sorted_ranks else table


@st.composite
def cases(draw, most_budget=40, most_depth=6):
    depth, ranks = draw(st.integers(0, most_depth)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    table = rates(random, draw(st.sampled_from([(ranks,), (depth, ranks)])), draw(st.booleans()))
    table[random.random(table.shape) < draw(st.sampled_from([0.0, 0.3]))] = 0
    return table, draw(st.integers(0, most_budget)), depth


def every_tree(budget, depth, ranks):
    """Sets of paths (ranks from the seed down), each with the paths above its own, at most `budget` of them."""
    paths = [path for level in range(1, depth + 1) for path in product(range(ranks), repeat=level)]

    def grow(chosen, first):
        yield chosen
        for at in range(first, len(paths) if len(chosen) < budget else 0):
            if len(paths[at]) == 1 or paths[at][:-1] in chosen:
                yield from grow([*chosen, paths[at]], at + 1)

    return grow([], 0)


@pytest.mark.parametrize(
    ("budget", "depth", "ranks"), [(0, 2, 2), (1, 3, 3), (3, 2, 3), (4, 3, 2), (5, 2, 2), (4, 4, 2)]
)
@given(seed=st.integers(0, 2**32), varied=st.booleans(), sorted_ranks=st.booleans())
def test_no_tree_is_worth_more(budget, depth, ranks, seed, varied, sorted_ranks):
    table = rates(np.random.default_rng(seed), (depth, ranks) if varied else (ranks,), sorted_ranks)
    levels = table if varied else np.tile(table, (depth, 1))
    best = max(
        1 + sum(np.prod([levels[level, rank] for level, rank in enumerate(path)]) for path in tree)
        for tree in every_tree(budget, depth, ranks)
    )
    np.testing.assert_allclose(static_tree(table, budget, depth).expected, best, rtol=1e-12)


@given(case=cases())
def test_a_tree_is_worth_what_it_expects_and_keeps_to_its_bounds(case):
    table, budget, depth = case
    tree = static_tree(*case)
    assert tree.parents.dtype == tree.ranks.dtype == np.int32 and len(tree.parents) == len(tree.ranks) <= budget
    np.testing.assert_allclose(tree.expected, expected_tokens(tree.parents, tree.ranks, table), rtol=1e-12)
    levels = []
    for node, parent in enumerate(tree.parents):
        assert -1 <= parent < node
        levels.append(levels[parent] + 1 if parent >= 0 else 1)
    assert levels == sorted(levels) and max(levels, default=0) <= depth


@given(case=cases())
def test_more_nodes_or_levels_never_lose(case):
    table, budget, depth = case
    tree = static_tree(*case)
    more = static_tree(table, budget + 1, depth)
    assert more.expected >= tree.expected - 1e-12
    assert len(tree.parents) == budget or len(more.parents) == len(tree.parents)  # what was left out adds nothing
    if table.ndim == 1:
        assert static_tree(table, budget, depth + 1).expected >= tree.expected - 1e-12


@given(case=cases())
def test_children_have_the_first_ranks_where_rates_fall(case):
    table, budget, depth = case
    tree = static_tree(-np.sort(-table, axis=-1), budget, depth)
    for parent in set(tree.parents.tolist()):
        ranks = tree.ranks[tree.parents == parent]
        assert ranks.tolist() == list(range(len(ranks)))


def test_known_trees():
    chain = static_tree([0.5], 10, 3)
    assert chain.parents.tolist() == [-1, 0, 1] and chain.ranks.tolist() == [0, 0, 0] and chain.expected == 1.875
    # Paths and their worth: 0: .6, 00: .36, 1: .3, 000: .216, 01 and 10: .18.
    tree = static_tree([0.6, 0.3], 4, 9)
    assert tree.parents.tolist() == [-1, -1, 0, 2] and tree.ranks.tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(tree.expected, 1 + 0.6 + 0.36 + 0.3 + 0.216, rtol=1e-15)
    for nothing in (static_tree([0.5], 0, 3), static_tree([0.5], 3, 0), static_tree([0.0, 0.0], 5, 5)):
        assert nothing.parents.size == nothing.ranks.size == 0 and nothing.expected == 1
    # Only the second rank is ever accepted, and at the seed none but the first.
    tree = static_tree([[0.5, 0.0], [0.0, 0.5]], 9, 2)
    assert tree.parents.tolist() == [-1, 0] and tree.ranks.tolist() == [0, 1] and tree.expected == 1.75


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([0.5], -1, 2), r"budget must lie in 0\.\.1024, got -1"),
        (([0.5], 2, 1.0), "depth must be an integer, got 1.0"),
        (([], 2, 2), r"acceptance must be numbers of shape \(ranks,\) or \(depth, ranks\), got \[\]"),
        ((0.5, 2, 2), "acceptance must be numbers of shape"),
        ((["a"], 2, 2), "acceptance must be numbers of shape"),
        (([[0.5], [0.5]], 2, 3), "acceptance must have 3 rows, one a level, got 2"),
        (([0.5, -0.1], 2, 2), r"acceptance must lie in 0\.\.1, got -0\.1"),
        (([np.nan], 2, 2), r"acceptance must lie in 0\.\.1, got nan"),
        (([0.9, 0.8], 2, 2), r"acceptance must sum to 1 or less over the ranks, .* got 1\.7"),
    ],
)
def test_a_static_tree_refuses(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        static_tree(*arguments)


@pytest.mark.parametrize(
    ("parents", "ranks", "acceptance", "text"),
    [
        ([-1, 1], [0, 0], [0.5], r"parents\[1\] must lie in -1\.\.0, got 1"),
        ([-1, 0], [0, 1], [0.5], r"ranks\[1\] must lie in 0\.\.0, got 1"),
        ([-1, 0, -1], [0, 0, 0], [0.5], r"ranks\[2\] must differ from that of its sibling 0, got 0 for both"),
        ([-1, 0], [0, 0], [[0.5]], "acceptance must have a row for each level, got 1; node 1 needs one more"),
        ([-1, 0], [0], [0.5], r"ranks must have shape \(2,\), got \(1,\)"),
    ],
)
def test_expected_tokens_refuses(parents, ranks, acceptance, text):
    with pytest.raises(ArgumentError, match=text):
        expected_tokens(np.array(parents, np.int32), np.array(ranks, np.int32), acceptance)
