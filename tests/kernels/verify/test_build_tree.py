"""build_tree against its reference, on every level; that what is kept is a tree; ties; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import build_tree, tree_layout
from fastdistill.testing import strategies
from fastdistill.testing.cases.verify.build_tree import check


@given(case=strategies.build_tree())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.build_tree())
def test_what_is_kept_is_closed_under_parents(isa, case):
    parents, _, budget = case.values()
    tree = build_tree(**case)
    assert len(tree.nodes) == min(budget, len(parents)) and (np.diff(tree.nodes) > 0).all()
    places = np.append(tree.nodes, -1)  # place -1 is the seed's
    np.testing.assert_array_equal(places[tree.parents], parents[tree.nodes])
    tree_layout(np.append(np.int32(-1), tree.parents + np.int32(1)))  # the seed before them


@given(case=strategies.build_tree())
def test_nothing_left_out_is_better_where_children_never_outscore_parents(isa, case):
    parents, scores, budget = case.values()
    counted = scores.copy()
    for node, parent in enumerate(parents):
        counted[node] = min(counted[node], counted[parent] if parent >= 0 else np.inf)
    kept = build_tree(parents, counted, budget).nodes
    assert kept.tolist() == build_tree(**case).nodes.tolist() == sorted(np.argsort(-counted, kind="stable")[:budget])


@given(case=strategies.build_tree(), more=st.integers(0, 20))
def test_a_larger_budget_only_adds(isa, case, more):
    parents, scores, budget = case.values()
    assert set(build_tree(**case).nodes) <= set(build_tree(parents, scores, budget + more).nodes)


def test_a_certain_child_does_not_displace_its_parent(isa):
    """Log probabilities of 0 down a chain, beside a sibling that ties: parents first."""
    tree = build_tree(np.array([-1, 0, 1, -1], np.int32), np.array([-1, -1, -1, -1], np.float32), 2)
    assert tree.nodes.tolist() == [0, 1] and tree.parents.tolist() == [-1, 0]


def test_a_child_that_outscores_its_parent_counts_as_it(isa):
    tree = build_tree(np.array([-1, 0, -1], np.int32), np.array([-3, 0, -2], np.float32), 1)
    assert tree.nodes.tolist() == [2]
    tree = build_tree(np.array([-1, -1, 0], np.int32), np.array([-3, -2, 0], np.float32), 2)
    assert tree.nodes.tolist() == [0, 1]


@given(case=strategies.build_tree(), data=st.data())
def test_names_the_first_node_whose_parent_is_not_before_it(isa, case, data):
    parents, scores, budget = case.values()
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
