"""WAD's pseudo labels and margins, and cosines to the nearest example of a class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import class_similarity, margin_weights
from fastdistill.distill.selectors import margins
from fastdistill.errors import ArgumentError, NotFiniteError

ULP = 2.0**-52


@st.composite
def points(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, examples, classes = draw(st.integers(0, 9)), draw(st.integers(0, 12)), draw(st.integers(1, 5))
    width = draw(st.integers(1, 6))
    features, labelled = random.standard_normal((rows, width)), random.standard_normal((examples, width))
    return features, labelled, random.integers(0, classes, examples).astype(np.int32), classes


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 6))
def test_the_weight_is_the_lead_of_the_best_class(seed, classes):
    random = np.random.default_rng(seed)
    similarities = random.integers(-4, 5, (7, classes)) / 4
    weights = np.where(random.random(7) < 0.3, 0, 0.5)
    given_rows = np.where(weights[:, None] > 0, similarities, np.nan)
    found = margin_weights(given_rows, weights=weights)
    best = np.sort(similarities, axis=1)
    np.testing.assert_array_equal(found.weights, weights * (best[:, -1] - best[:, -2]))
    np.testing.assert_array_equal(found.labels, np.where(weights > 0, similarities.argmax(axis=1), 0))
    assert found.labels.dtype == np.int32 and (found.weights >= 0).all()
    moved = margin_weights(given_rows + 0.25, weights=weights)
    np.testing.assert_array_equal(moved.weights, found.weights)


def test_known_margins():
    found = margin_weights(np.array([[0.9, 0.5], [0.3, 0.3], [-0.2, -0.5], [0.0, -1.0]]))
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 0])
    np.testing.assert_allclose(
        found.weights, [0.4, 0, 0.3, 1], rtol=4 * ULP
    )  # top1 (1 - top2 / top1) is NaN in the last
    logits = margin_weights(np.array([[1.0, 4.0, 2.5]], np.float32))
    assert logits.labels.tolist() == [1] and logits.weights.tolist() == [1.5]


def test_a_class_that_is_alone_weighs_its_similarity():
    found = margin_weights(np.array([[0.75], [-0.5]]))
    np.testing.assert_array_equal(found.weights, [0.75, 0])
    found = margin_weights(np.array([[-np.inf, 0.75], [-np.inf, -0.5]]))
    np.testing.assert_array_equal(found.labels, [1, 1])
    np.testing.assert_array_equal(found.weights, [0.75, 0])
    assert margin_weights(np.zeros((0, 3))).weights.shape == (0,)


@given(case=points(), block=st.sampled_from([1, 7, 1 << 20]))
def test_the_similarity_is_the_largest_cosine_to_an_example(case, block):
    features, labelled, labels, classes = case
    before, margins._BLOCK = margins._BLOCK, block
    try:
        found = class_similarity(features, labelled, labels, classes)
    finally:
        margins._BLOCK = before
    assert found.shape == (len(features), classes)
    for row, point in enumerate(features):
        for label in range(classes):
            cosines = [
                point @ other / np.linalg.norm(point) / np.linalg.norm(other) for other in labelled[labels == label]
            ]
            np.testing.assert_allclose(found[row, label], max(cosines, default=-np.inf), rtol=0, atol=20 * ULP)


@given(case=points())
def test_duplicates_scales_and_the_order_of_examples_do_not_matter(case):
    features, labelled, labels, classes = case
    want = class_similarity(features, labelled, labels, classes)
    twice, scaled = np.concatenate([labelled, labelled[::-1]]), np.concatenate([labels, labels[::-1]])
    np.testing.assert_allclose(class_similarity(features * 3, twice, scaled, classes), want, rtol=0, atol=20 * ULP)
    order = np.arange(classes)[::-1].astype(np.int32)
    np.testing.assert_allclose(
        class_similarity(features, labelled, order[labels], classes), want[:, ::-1], rtol=0, atol=20 * ULP
    )


@given(case=points())
def test_an_example_is_like_its_own_class_by_one(case):
    _, labelled, labels, classes = case
    found = class_similarity(labelled, labelled, labels, classes)
    np.testing.assert_allclose(found[np.arange(len(labels)), labels], 1, rtol=0, atol=20 * ULP)
    assert (found <= 1).all()


def test_lengths_of_any_size_and_none():
    features = np.array([[1e-200, 0.0], [0.0, 1e200], [0.0, 0.0]])
    found = class_similarity(features, np.array([[1e300, 0.0], [0.0, 0.0]]), [0, 1], 3)
    np.testing.assert_array_equal(found, [[1, 0, -np.inf], [0, 0, -np.inf], [0, 0, -np.inf]])


def test_margins_tell_known_from_unknown_classes():
    random = np.random.default_rng(0)
    centers = random.standard_normal((6, 16))
    known = np.repeat(np.arange(2), 20)
    labelled = centers[known] + 0.3 * random.standard_normal((40, 16))
    classes = np.repeat(np.arange(6), 50)
    features = centers[classes] + 0.3 * random.standard_normal((300, 16))
    found = margin_weights(class_similarity(features, labelled, known, 2))
    assert found.weights[classes < 2].mean() > 3 * found.weights[classes >= 2].mean()
    np.testing.assert_array_equal(found.labels[classes < 2], classes[classes < 2])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: margin_weights([[1.0]]), "similarities must be a NumPy array"),
        (lambda: margin_weights(np.zeros((2, 0))), "at least one class"),
        (lambda: class_similarity(np.zeros((2, 3)), np.zeros((2, 4)), [0, 0], 1), r"labelled_features must have shape \(any, 3\)"),
        (lambda: class_similarity(np.zeros((2, 3)), np.zeros((2, 3), np.float32), [0, 0], 1), "must have dtype float64 as features has"),
        (lambda: class_similarity(np.zeros((2, 3)), np.zeros((2, 3)), [0], 1), r"labels must have shape \(2,\)"),
        (lambda: class_similarity(np.zeros((2, 3)), np.zeros((2, 3)), [0, 1], 1), "labels must lie in 0..0, got 1 in row 1"),
        (lambda: class_similarity(np.zeros((2, 3)), np.zeros((2, 3)), [0, 0], 0), "classes must lie in"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


@pytest.mark.parametrize("bad", [[0.0, np.nan], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_names_the_row_that_is_not_finite(bad):
    with pytest.raises(NotFiniteError, match="similarities: row 1 holds"):
        margin_weights(np.array([[0.0, 1.0], bad]))
    with pytest.raises(NotFiniteError, match="labelled_features: row 0 holds"):
        class_similarity(np.zeros((1, 2)), np.array([bad]), [0], 1)
    with pytest.raises(NotFiniteError, match=r"^features: row 0 holds"):
        class_similarity(np.array([bad]), np.zeros((1, 2)), [0], 1)
