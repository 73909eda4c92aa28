"""tree_layout against its reference, on every level; what the parts of a layout say of one another; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import tree_layout
from fastdistill.testing import strategies
from fastdistill.testing.cases.verify.tree_layout import check


@given(case=strategies.tree_layout())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.tree_layout())
def test_the_parts_agree(isa, case):
    parents = case["parents"]
    n, layout = len(parents), tree_layout(parents)
    assert layout.ancestors.shape == (n, -(-n // 64))
    ancestors = [{j for j in range(n) if int(row[j // 64]) >> j % 64 & 1} for row in layout.ancestors]
    for node, parent in enumerate(parents):
        assert sum(int(word).bit_count() for word in layout.ancestors[node]) - 1 == layout.depths[node]
        assert ancestors[node] == {node} | (ancestors[parent] if node else set())
    families = np.split(layout.children, layout.child_offsets[1:-1])
    assert len(families) == n and layout.child_offsets[0] == 0 and layout.child_offsets[n] == n - 1
    for node, children in enumerate(families):
        assert (parents[children] == node).all() and (np.diff(children) > 0).all()
    assert layout.leaves.tolist() == [node for node in range(n) if not families[node].size]


def test_chain_and_star(isa):
    chain = tree_layout(np.arange(-1, 99, dtype=np.int32))
    assert chain.depths.tolist() == list(range(100)) and chain.leaves.tolist() == [99]
    assert chain.ancestors[99].tolist() == [2**64 - 1, 2**36 - 1]
    star = tree_layout(np.array([-1] + [0] * 99, np.int32))
    assert star.depths.tolist() == [0] + [1] * 99 and star.leaves.tolist() == star.children.tolist() == list(
        range(1, 100)
    )
    alone = tree_layout(np.array([-1], np.int32))
    assert [part.tolist() for part in alone] == [[0], [[1]], [0], [], [0, 0]]


@given(case=strategies.tree_layout(), data=st.data())
def test_names_the_first_node_whose_parent_is_not_before_it(isa, case, data):
    parents = case["parents"]
    node = data.draw(st.integers(0, len(parents) - 1))
    wrong = data.draw(st.sampled_from([-2, -1, node, node + 1, 2**31 - 1, -(2**31)] if node else [0, 1, -2]))
    parents[node + 1 :] = -1  # more of them, after the first
    parents[node] = wrong
    wanted = rf"lie in 0\.\.{node - 1}" if node else "be -1, the root"
    with pytest.raises(ArgumentError, match=rf"^parents\[{node}\] must {wanted}, got {wrong}$"):
        tree_layout(parents)


@pytest.mark.parametrize(
    ("parents", "text"),
    [
        ([-1, None], "parents must hold integers"),
        (np.zeros(2), "parents must have dtype int32, got float64"),
        (np.zeros((1, 2), np.int32), r"parents must have shape \(n,\), got \(1, 2\)"),
        (np.empty(0, np.int32), "parents must have at least one node, the root; got none"),
    ],
)
def test_refuses(parents, text):
    with pytest.raises(ArgumentError, match=text):
        tree_layout(parents)
