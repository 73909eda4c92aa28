"""Means of teachers with abstention, in logits and in probabilities; and who is near its own data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import distance_filter, masked_mean
from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.reference.transport.softmax import softmax

spaces = st.sampled_from(["logits", "probabilities"])


@st.composite
def cases(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.integers(1, 6))
    logits = random.standard_normal(shape) * 3
    logits[..., 1:][random.random(logits[..., 1:].shape) < draw(st.sampled_from([0, 0.2]))] = -np.inf
    mask, weights = (
        random.random(shape[:2]) < 0.7,
        np.where(random.random(shape[0]) < 0.2, 0, random.random(shape[0]) + 0.1),
    )
    logits[~mask] = np.nan
    logits[weights == 0] = np.nan
    return logits, mask, weights


@given(case=cases(), space=spaces)
def test_is_the_mean_of_those_that_count(case, space):
    logits, mask, weights = case
    found = masked_mean(logits, mask, weights=weights, space=space)
    counts = mask & (weights[:, None] > 0)
    np.testing.assert_array_equal(found.teachers, counts.sum(axis=0))
    assert found.teachers.dtype == np.int32
    for row in range(logits.shape[1]):
        own, shares = logits[counts[:, row], row], weights[counts[:, row]]
        if not len(own):
            np.testing.assert_array_equal(found.logits[row], 0)
        elif space == "logits":
            want = np.average(own, axis=0, weights=shares)
            np.testing.assert_allclose(found.logits[row], want, rtol=1e-12, atol=1e-14)
        else:
            np.testing.assert_allclose(
                np.exp(found.logits[row]), np.average(softmax(own), axis=0, weights=shares), rtol=1e-12
            )


@given(case=cases(), space=spaces)
def test_one_teacher_is_itself_and_their_order_does_not_matter(case, space):
    logits, mask, weights = case
    want = masked_mean(logits, mask, weights=weights, space=space)
    moved = masked_mean(logits[::-1].copy(), mask[::-1], weights=weights[::-1], space=space)
    np.testing.assert_allclose(moved.logits, want.logits, rtol=1e-12, atol=1e-13)
    if len(logits):
        alone = np.zeros_like(mask)
        alone[0] = mask[0]
        single = masked_mean(logits, alone, space=space) if weights[0] > 0 else None
        if single is not None:
            rows = mask[0]
            np.testing.assert_allclose(softmax(single.logits[rows]), softmax(logits[0][rows]), rtol=1e-12, atol=1e-300)


def test_a_constant_of_one_teacher_changes_nothing_and_a_scale_does():
    logits = np.random.default_rng(0).standard_normal((2, 3, 5))
    want = softmax(masked_mean(logits).logits)
    shifted = logits + np.array([1e3, -7.0])[:, None, None]
    np.testing.assert_allclose(softmax(masked_mean(shifted).logits), want, rtol=1e-11)
    louder = logits * np.array([50.0, 1.0])[:, None, None]
    assert (softmax(masked_mean(louder).logits).argmax(axis=1) == logits[0].argmax(axis=1)).all()
    in_laws = np.exp(masked_mean(louder, space="probabilities").logits)
    assert (in_laws.max(axis=1) < 0.5 + softmax(logits[1]).max(axis=1)).all()


def test_large_logits_are_as_good_as_any():
    logits = np.random.default_rng(2).standard_normal((2, 3, 5))
    for space in ("logits", "probabilities"):
        want, got = (softmax(masked_mean(z, space=space).logits) for z in (logits, logits + 1e4))
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_ban_of_one_is_a_ban_in_logits_alone():
    logits = np.zeros((2, 1, 3))
    logits[0, 0, 2] = -np.inf
    np.testing.assert_array_equal(masked_mean(logits).logits, [[0, 0, -np.inf]])
    np.testing.assert_allclose(
        np.exp(masked_mean(logits, space="probabilities").logits), [[5 / 12, 5 / 12, 1 / 6]], rtol=1e-15
    )
    assert masked_mean(logits.astype(np.float32)).logits.dtype == np.float32


def test_far_apart_clusters_pass_their_own_points_alone():
    random = np.random.default_rng(1)
    centers = np.array([[0.0, 0.0], [50.0, 0.0]])
    own = np.repeat(centers, 30, axis=0) + random.standard_normal((60, 2))
    strange = np.array([[25.0, 0.0]]) + random.standard_normal((20, 2))
    points = np.concatenate([own, strange])
    np.testing.assert_array_equal(distance_filter(points, own, centers, quantile=1.0), np.arange(80) < 60)
    previous = np.zeros(80, bool)
    for quantile in (0.0, 0.3, 0.9, 1.0):
        passed = distance_filter(points, own, centers, quantile=quantile)
        assert (passed >= previous).all()
        previous = passed
    distances = np.sqrt(((own[:, None] - centers) ** 2).sum(axis=2)).min(axis=1)
    np.testing.assert_array_equal(
        distance_filter(own, own, centers), distances <= np.quantile(distances, 0.9)
    )  # none is within rounding of the threshold, which lies between two


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: masked_mean(np.zeros((2, 3))), r"logits must have shape \(teachers, rows, vocab\)"),
        (lambda: masked_mean(np.zeros((2, 3, 0))), "logits must have at least one token"),
        (lambda: masked_mean(np.zeros((2, 3, 4)), np.ones((2, 2), bool)), r"mask must have shape \(2, 3\)"),
        (lambda: masked_mean(np.zeros((2, 3, 4)), np.ones((2, 3))), "mask must have dtype bool"),
        (lambda: masked_mean(np.zeros((2, 3, 4)), weights=[1.0]), r"weights must have shape \(2,\)"),
        (lambda: masked_mean(np.zeros((2, 3, 4)), space="odds"), "space must be one of logits, probabilities"),
        (lambda: distance_filter(np.zeros((2, 3)), np.zeros((0, 3)), np.zeros((1, 3))), "own must have at least one row"),
        (lambda: distance_filter(np.zeros((2, 3)), np.zeros((1, 3)), np.zeros((0, 3))), "centers must have at least one row"),
        (lambda: distance_filter(np.zeros((2, 3)), np.zeros((1, 2)), np.zeros((1, 3))), r"own must have shape \(any, 3\)"),
        (lambda: distance_filter(np.zeros((2, 3)), np.zeros((1, 3)), np.zeros((1, 3)), quantile=2), "quantile must lie in 0..1"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


def test_names_what_is_not_finite():
    logits = np.zeros((2, 3, 4))
    for bad in (np.nan, np.inf, -np.inf):
        logits[1, 2] = bad
        with pytest.raises(NotFiniteError, match="logits: teacher 1, row 2 holds"):
            masked_mean(logits)
    logits[...] = -np.inf
    logits[0, :, 0] = logits[1, :, 1] = 0
    with pytest.raises(NotFiniteError, match="in row 0 the bans of all teachers leave no token"):
        masked_mean(logits)
    for name in ("points", "own", "centers"):
        arrays = {each: np.zeros((2, 3)) for each in ("points", "own", "centers")}
        arrays[name][1, 1] = np.nan
        with pytest.raises(NotFiniteError, match=rf"{name} holds .*: {name}\[1, 1\]"):
            distance_filter(**arrays)
