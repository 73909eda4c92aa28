"""build_tree against its reference, on every level; that what is kept is a tree; ties; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import build_tree, tree_layout
from fastdistill.reference.verify.build_tree import build_tree as reference_build_tree


@st.composite
def cases(draw):
    """Pools whose scores fall along paths, or do not; few different scores, so that most of them tie, zeros of both signs."""
    n = draw(st.sampled_from([0, 1, 2, 10, 100, 300]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    parents = (random.integers(0, np.arange(n) + 1) - 1).astype(np.int32)
    steps = draw(st.sampled_from([[0.0], [0.0, -0.0], [0.0, -1.0], [0.0, -1.0, -1e-30, -np.inf], [0.0, -1.0, 0.5]]))
    scores = random.choice(np.array(steps, np.float32), n) if draw(st.booleans()) else -random.exponential(1, n)
    scores = scores.astype(np.float32)
    if draw(st.booleans()):
        for node, parent in enumerate(parents):
            scores[node] += scores[parent] if parent >= 0 else 0
    return parents, scores, draw(st.sampled_from([1, 2, 5, 60, 1000]))


@given(case=cases())
def test_matches_reference(isa, case):
    for got, want in zip(build_tree(*case), reference_build_tree(*case), strict=True):
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want)


@given(case=cases())
def test_what_is_kept_is_closed_under_parents(isa, case):
    parents, _, budget = case
    tree = build_tree(*case)
    assert len(tree.nodes) == min(budget, len(parents)) and (np.diff(tree.nodes) > 0).all()
    places = np.append(tree.nodes, -1)  # place -1 is the seed's
    np.testing.assert_array_equal(places[tree.parents], parents[tree.nodes])
    tree_layout(np.append(np.int32(-1), tree.parents + np.int32(1)))  # the seed before them


@given(case=cases())
def test_nothing_left_out_is_better_where_children_never_outscore_parents(isa, case):
    parents, scores, budget = case
    counted = scores.copy()
    for node, parent in enumerate(parents):
        counted[node] = min(counted[node], counted[parent] if parent >= 0 else np.inf)
    kept = build_tree(parents, counted, budget).nodes
    assert kept.tolist() == build_tree(*case).nodes.tolist() == sorted(np.argsort(-counted, kind="stable")[:budget])


@given(case=cases(), more=st.integers(0, 20))
def test_a_larger_budget_only_adds(isa, case, more):
    parents, scores, budget = case
    assert set(build_tree(*case).nodes) <= set(build_tree(parents, scores, budget + more).nodes)


def test_a_certain_child_does_not_displace_its_parent(isa):
    """Log probabilities of 0 down a chain, beside a sibling that ties: parents first."""
    tree = build_tree(np.array([-1, 0, 1, -1], np.int32), np.array([-1, -1, -1, -1], np.float32), 2)
    assert tree.nodes.tolist() == [0, 1] and tree.parents.tolist() == [-1, 0]


def test_a_child_that_outscores_its_parent_counts_as_it(isa):
    tree = build_tree(np.array([-1, 0, -1], np.int32), np.array([-3, 0, -2], np.float32), 1)
    assert tree.nodes.tolist() == [2]
    tree = build_tree(np.array([-1, -1, 0], np.int32), np.array([-3, -2, 0], np.float32), 2)
    assert tree.nodes.tolist() == [0, 1]


@given(case=cases(), data=st.data())
def test_names_the_first_node_whose_parent_is_not_before_it(isa, case, data):
    parents, scores, budget = case
    if not len(parents):
        return
    node = data.draw(st.integers(0, len(parents) - 1))
    parents[node:] = data.draw(st.sampled_from([len(parents), 2**31 - 1, -2, -(2**31)]))
    with pytest.raises(ArgumentError, match=rf"^parents\[{node}\] must lie in -1\.\.{node - 1}, got {parents[node]}$"):
        build_tree(parents, scores, budget)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_reports_what_is_not_finite(isa, bad):
    with pytest.raises(NotFiniteError, match=r"build_tree: a score is NaN or \+inf"):
        build_tree(np.array([-1, -1], np.int32), np.array([0, bad], np.float32), 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"parents": np.zeros(2)}, "parents must have dtype int32, got float64"),
        ({"scores": np.zeros(3, np.float32)}, r"scores must have shape \(2,\), got \(3,\)"),
        ({"budget": 0}, r"budget must lie in 1\.\..*, got 0"),
        ({"budget": 1.0}, "budget must be an integer, got 1.0"),
    ],
)
def test_refuses(change, text):
    good = {"parents": np.full(2, -1, np.int32), "scores": np.zeros(2, np.float32), "budget": 2}
    with pytest.raises(ArgumentError, match=text):
        build_tree(**(good | change))
