"""Hard negatives and how far they are ranked: by the list's own loss, by differences, and what does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import (
    cosine_similarity,
    cosine_similarity_gradient,
    hard_negatives,
    info_nce,
    partial_ranking,
    plackett_luce,
)
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


# ---- which candidates ----
@given(seed=st.integers(0, 2**32), top_k=st.integers(1, 9))
def test_hard_negatives_are_the_most_similar_that_are_not_right(seed, top_k):
    random = np.random.default_rng(seed)
    similarities, labels = np.round(random.standard_normal((4, 8)), 1), random.integers(0, 8, 4)
    groups = random.integers(0, 3, 8)
    for given_groups in (None, groups):
        found = hard_negatives(similarities, labels, top_k=top_k, groups=given_groups)
        for row, label in enumerate(labels):
            left = [c for c in range(8) if (c != label if given_groups is None else groups[c] != groups[label])]
            want = sorted(left, key=lambda c: (-similarities[row, c], c))[:top_k]
            assert found[row].tolist() == want + [-1] * (min(top_k, 8) - len(want))


def test_hard_negatives_of_nothing():
    similarities = np.array([[1.0, 2.0, 3.0], [np.nan, 0, 0], [3.0, -np.inf, 1.0]])
    assert hard_negatives(similarities, [2, -100, 0], top_k=2).tolist() == [[1, 0], [-1, -1], [2, -1]]


# ---- how they are ranked ----
def case(seed=0, rows=3, candidates=7, length=4):
    random = np.random.default_rng(seed)
    student, teacher = random.standard_normal((rows, candidates)), random.standard_normal((rows, length))
    return student, teacher, hard_negatives(student, np.arange(rows), top_k=length)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 2.0])
def test_is_the_list_with_weights_of_one_up_to_the_first_invalid(temperature):
    student, teacher, negatives = case()
    found = partial_ranking(student, teacher, negatives, threshold=0.0, temperature=temperature)
    order = np.argsort(-teacher, axis=1)
    scores = np.take_along_axis(np.take_along_axis(student, negatives, axis=1), order, axis=1) / temperature
    valid = np.take_along_axis(teacher, order, axis=1) >= 0
    want = plackett_luce(scores, valid.astype(float), weights=valid.any(axis=1).astype(float))
    np.testing.assert_allclose(found.value, want.value, rtol=1e-13)
    np.testing.assert_array_equal(found.info["valid"], valid.sum(axis=1))
    places = np.take_along_axis(negatives, order, axis=1)
    by_scores = np.take_along_axis(found.gradient, places, axis=1)
    np.testing.assert_allclose(by_scores, want.gradient.scores / temperature, atol=1e-14)
    np.testing.assert_allclose(found.gradient.sum(axis=1), 0, atol=1e-13)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("threshold", [None, 0.0, [-9.0, 9.0, 0.3]])
def test_gradient_is_the_derivative(temperature, threshold):
    student, teacher, negatives = case(1)
    negatives[0, 2], teacher[1, 1] = -1, -np.inf

    def call(at):
        return partial_ranking(
            at, teacher, negatives, threshold=threshold, temperature=temperature, weights=[1, 2, 0.5]
        )

    np.testing.assert_allclose(call(student).gradient, slopes(lambda at: call(at).value, student), atol=1e-8)


@given(seed=st.integers(0, 2**32))
def test_any_rising_map_of_the_teachers_scores_changes_nothing(seed):
    student, teacher, negatives = case(seed)
    want = partial_ranking(student, teacher, negatives, threshold=0.2)
    for rising in (np.exp, np.tanh, lambda scores: scores**3):
        found = partial_ranking(student, rising(teacher), negatives, threshold=float(rising(np.array(0.2))))
        assert found.value == want.value and found.gradient.tobytes() == want.gradient.tobytes()


def test_one_valid_negative_is_cross_entropy_of_the_teachers_favourite():
    student, teacher, negatives = case(2)
    best = teacher.max(axis=1)
    found = partial_ranking(student, teacher, negatives, threshold=best)
    assert found.info["valid"].tolist() == [1, 1, 1]
    chosen = np.take_along_axis(student, negatives, axis=1)
    want = info_nce(chosen, teacher.argmax(axis=1), temperature=1.0)
    np.testing.assert_allclose(found.rows, want.rows, rtol=1e-13)


def test_rows_without_valid_negatives_do_not_count():
    student, teacher, negatives = case(3)
    found = partial_ranking(student, teacher, negatives, threshold=[-9.0, 99.0, -9.0], weights=[1.0, 5.0, 2.0])
    want = partial_ranking(student[[0, 2]], teacher[[0, 2]], negatives[[0, 2]], weights=[1.0, 2.0])
    assert found.value == want.value and found.info["total_weight"] == 3 and not found.gradient[1].any()
    negatives[1] = -1
    student[1] = np.nan  # without negatives nothing of a row is read
    found = partial_ranking(student, teacher, negatives, weights=[1.0, 5.0, 2.0])
    assert found.value == want.value and found.info["valid"].tolist() == [4, 0, 4]


def test_what_is_not_there_is_as_if_it_had_not_been_given():
    student, teacher, negatives = case(4)
    want = partial_ranking(student, teacher[:, :3].copy(), negatives[:, :3])
    missing = negatives.copy()
    missing[:, 3] = -1
    spoilt = np.concatenate([teacher[:, :3], np.full((3, 1), np.nan)], axis=1)
    found = partial_ranking(student, spoilt, missing)
    np.testing.assert_allclose(found.rows, want.rows, rtol=1e-14)
    np.testing.assert_allclose(found.gradient, want.gradient, atol=1e-15)


def test_what_the_teacher_rules_out_is_never_valid_but_competes():
    student = np.array([[0.0, 1.0, 2.0]])
    found = partial_ranking(student, np.array([[-np.inf, 5.0, -np.inf]]), [[0, 1, 2]])
    assert found.info["valid"].tolist() == [1]
    np.testing.assert_allclose(found.value, np.log(np.exp([0, 1, 2]).sum()) - 1, rtol=1e-14)


def test_ties_of_the_teacher_go_to_the_students_favourite():
    student = np.array([[0.0, 1.0, 2.0]])
    found = partial_ranking(student, np.array([[5.0, 5.0]]), [[1, 2]])
    want = plackett_luce(np.array([[2.0, 1.0]]))
    assert found.value == want.value
    assert partial_ranking(student, np.array([[5.0, 5.0]]), [[2, 1]]).value == want.value


def test_embeddings_get_their_gradient_through_the_cosines():
    random = np.random.default_rng(5)
    images, texts = random.standard_normal((3, 4)), random.standard_normal((6, 4))
    teacher = random.standard_normal((3, 3))
    negatives = hard_negatives(cosine_similarity(images, texts), [0, 1, 2], top_k=3)

    def call(images, texts):
        return partial_ranking(cosine_similarity(images, texts), teacher, negatives, threshold=-0.5, temperature=0.1)

    found = cosine_similarity_gradient(call(images, texts).gradient, images, texts)
    np.testing.assert_allclose(found.x, slopes(lambda at: call(at, texts).value, images), atol=1e-7)
    np.testing.assert_allclose(found.y, slopes(lambda at: call(images, at).value, texts), atol=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"negatives": [[0, 3], [0, 1]]}, ArgumentError, r"negatives must lie in -1..2, got \[0, 3\] in row 0"),
        ({"negatives": [[0, 1], [-2, 1]]}, ArgumentError, r"negatives must lie in -1..2, got \[-2, 1\] in row 1"),
        ({"negatives": [[0, 1], [1, 1]]}, ArgumentError, "negatives must differ within a row; row 1 has one twice"),
        ({"negatives": [[0, 1, 2]]}, ArgumentError, r"negatives must have shape \(2, 2\)"),
        ({"threshold": np.nan}, ArgumentError, "threshold must hold no NaN"),
        ({"threshold": [1.0]}, ArgumentError, r"threshold must have shape \(\) or \(2,\), got \(1,\)"),
        ({"threshold": "high"}, ArgumentError, "threshold must be"),
        ({"temperature": 0}, ArgumentError, "temperature must lie in"),
        ({"teacher": np.zeros((2, 0)), "negatives": np.zeros((2, 0), int)}, ArgumentError, "student and teacher must have columns"),
        ({"teacher": np.array([[0, np.nan], [0, 0]])}, NotFiniteError, "teacher: row 0 holds"),
    ],
)  # fmt: skip
def test_refuses(change, error, text):
    arguments = {"student": np.zeros((2, 3)), "teacher": np.zeros((2, 2)), "negatives": [[0, 1], [1, 2]]}
    with pytest.raises(error, match=text):
        partial_ranking(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"labels": [0, 3]}, ArgumentError, "labels must be tokens from 0 to 2"),
        ({"groups": [0, 1]}, ArgumentError, r"groups must have shape \(3,\)"),
        ({"top_k": 0}, ArgumentError, "top_k must lie in"),
        ({"similarities": np.zeros((2, 0))}, ArgumentError, "at least one column"),
        ({"similarities": np.array([[0, 0, 0], [np.nan, 0, 0]])}, NotFiniteError, "similarities: row 1 holds"),
    ],
)
def test_hard_negatives_refuses(change, error, text):
    with pytest.raises(error, match=text):
        hard_negatives(**({"similarities": np.zeros((2, 3)), "labels": [0, 1]} | change))
