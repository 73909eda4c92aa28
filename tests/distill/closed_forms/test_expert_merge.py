"""Fewer experts: which are kept, which are merged with which, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import merge_experts
from fastdistill.errors import ArgumentError, NotFiniteError

assigns = st.sampled_from(["nearest_one", "all"])


@st.composite
def layers(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    experts = draw(st.integers(1, 9))
    importance = random.integers(0, 4, experts) / 2 if draw(st.booleans()) else random.random(experts)
    return importance, random.random((experts, experts)), draw(st.integers(1, experts)), random


@given(layer=layers(), preserve=st.sampled_from([0.0, 0.5, 1.0]), assign=assigns)
def test_kept_experts_are_copies_and_merged_ones_means(layer, preserve, assign):
    importance, similarity, slots, random = layer
    found = merge_experts(importance, similarity, slots, preserve=preserve, assign=assign)
    weights = random.standard_normal((len(importance), 2, 3)).astype(np.float32)
    merged = found.apply(weights)
    assert merged.dtype == np.float32 and merged.shape == (slots, 2, 3)
    order = np.argsort(-importance, kind="stable")
    np.testing.assert_array_equal(found.base, np.sort(order[:slots]))
    np.testing.assert_allclose(found.shares.sum(axis=1), 1, rtol=1e-15)
    for slot, base in enumerate(found.base):
        members = np.flatnonzero(found.shares[slot])
        if base in order[: int(preserve * slots)]:
            assert members.tolist() == [base]
        others = order[slots:]
        assert set(members) - {base} <= set(others.tolist())
        if assign == "nearest_one" and base not in order[: int(preserve * slots)] and len(others):
            partner = max(sorted(others), key=lambda other: similarity[base, other])
            assert set(members) <= {int(base), int(partner)}
        if len(members) == 1:
            assert merged[slot].tobytes() == weights[members[0]].tobytes()
        else:
            shares = importance[members] if importance[members].any() else np.ones(len(members))
            want = np.average(weights[members].astype(np.float64), axis=0, weights=shares)
            np.testing.assert_allclose(merged[slot], want, rtol=1e-6, atol=1e-7)
            assert (merged[slot] <= weights[members].max(axis=0) + 1e-6).all()
    unused = set(range(len(importance))) - {int(e) for e in np.flatnonzero(found.shares.sum(axis=0))}
    assert found.unused.tolist() == sorted(unused)
    if assign == "all" and int(preserve * slots) < slots:
        assert all(importance[expert] == 0 for expert in unused)  # a share by importance may be 0


def test_known_merges():
    importance = [4.0, 3.0, 2.0, 1.0, 1.0, 0.5]
    similarity = np.zeros((6, 6))
    similarity[2, 4] = similarity[3, 4] = similarity[3, 5] = 1.0
    similarity[2, 5] = 0.5
    nearest = merge_experts(importance, similarity, 4)
    np.testing.assert_array_equal(nearest.base, [0, 1, 2, 3])
    np.testing.assert_allclose(nearest.shares[2], [0, 0, 2 / 3, 0, 1 / 3, 0], rtol=1e-15)
    np.testing.assert_array_equal(nearest.shares[3], [0, 0, 0, 0.5, 0.5, 0])  # 4 before 5: the first of equals
    np.testing.assert_array_equal(nearest.unused, [5])
    everyone = merge_experts(importance, similarity, 4, assign="all")
    np.testing.assert_allclose(everyone.shares[2], [0, 0, 2 / 3, 0, 1 / 3, 0], rtol=1e-15)
    np.testing.assert_allclose(everyone.shares[3], [0, 0, 0, 2 / 3, 0, 1 / 3], rtol=1e-15)
    assert len(everyone.unused) == 0
    odd = merge_experts(importance, similarity, 3)  # one kept, two merged
    assert [int((row > 0).sum()) for row in odd.shares] == [1, 2, 2]


@given(layer=layers(), assign=assigns)
def test_as_many_slots_as_experts_change_nothing(layer, assign):
    importance, similarity, _, random = layer
    found = merge_experts(importance, similarity, len(importance), assign=assign)
    weights = random.standard_normal((len(importance), 3))
    assert found.apply(weights).tobytes() == weights.tobytes() and len(found.unused) == 0


@given(layer=layers(), assign=assigns)
def test_a_scale_of_importance_changes_nothing(layer, assign):
    importance, similarity, slots, _ = layer
    one, other = (merge_experts(importance * scale, similarity, slots, assign=assign) for scale in (1.0, 1024.0))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_copies_merge_into_one_of_them():
    weights = np.random.default_rng(0).standard_normal((1, 4)).repeat(3, axis=0)
    merged = merge_experts([3.0, 2.0, 1.0], np.ones((3, 3)), 2).apply(weights)
    np.testing.assert_allclose(merged, weights[:2], rtol=1e-15)


def test_experts_never_used_have_equal_shares():
    found = merge_experts([0.0, 0.0], np.zeros((2, 2)), 1)
    np.testing.assert_array_equal(found.shares, [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"importance": [-1.0, 1.0]}, "importance must be at least 0"),
        ({"importance": [], "similarity": np.zeros((0, 0))}, "importance must have at least one expert"),
        ({"similarity": np.zeros((2, 3))}, r"similarity must have shape \(2, 2\)"),
        ({"slots": 3}, "slots must lie in 1..2"),
        ({"preserve": 1.5}, "preserve must lie in 0..1"),
        ({"assign": "best"}, "assign must be one of nearest_one, all"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        merge_experts(**({"importance": [1.0, 1.0], "similarity": np.zeros((2, 2)), "slots": 1} | change))


def test_refuses_other_experts_and_what_is_not_finite():
    with pytest.raises(ArgumentError, match=r"weights must have 2 experts, got shape \(3, 1\)"):
        merge_experts([1.0, 1.0], np.zeros((2, 2)), 1).apply(np.zeros((3, 1)))
    with pytest.raises(NotFiniteError, match="importance holds"):
        merge_experts([np.nan], np.zeros((1, 1)), 1)
    with pytest.raises(NotFiniteError, match="similarity holds"):
        merge_experts([1.0], np.full((1, 1), np.nan), 1)
