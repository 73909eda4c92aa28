"""Pairs that the teacher orders: by going through all of them, by differences, and what of the teacher matters."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import pairwise_ranking
from fastdistill.errors import ArgumentError
from tests.distill.slopes import slopes


@given(
    seed=st.integers(0, 2**32), kind=st.sampled_from(["hinge", "logistic"]), margin=st.sampled_from([None, 0.0, 0.7])
)
def test_is_the_mean_over_pairs(seed, kind, margin):
    random = np.random.default_rng(seed)
    student, teacher = random.standard_normal((3, 5)), random.integers(0, 4, (3, 5)).astype(np.float64)
    found = pairwise_ranking(student, teacher, kind, margin=margin)
    by = margin if margin is not None else {"hinge": 1, "logistic": 0}[kind]
    for row in range(3):
        costs = []
        for i, j in combinations(range(5), 2):
            if teacher[row, i] != teacher[row, j]:
                lead = (student[row, i] - student[row, j]) * np.sign(teacher[row, i] - teacher[row, j])
                costs.append(max(0, by - lead) if kind == "hinge" else np.log1p(np.exp(by - lead)))
        np.testing.assert_allclose(found.rows[row], np.mean(costs) if costs else 0, atol=1e-14)
        assert found.info["pairs"][row] == len(costs)


@pytest.mark.parametrize("kind", ["hinge", "logistic"])
@pytest.mark.parametrize("margin", [None, 0.3, 2.0])
def test_gradient_is_the_derivative(kind, margin):
    student, teacher = np.random.default_rng(0).standard_normal((2, 3, 5))
    teacher[1, 2] = teacher[1, 3] = -np.inf
    student[2, 1] = -np.inf
    settings = {"kind": kind, "margin": margin, "weights": [1, 0.5, 2]}
    found, finite = pairwise_ranking(student, teacher, **settings).gradient, np.isfinite(student)

    def at(values):
        placed = student.copy()
        placed[finite] = values
        return pairwise_ranking(placed, teacher, **settings).value

    np.testing.assert_allclose(found[finite], slopes(at, student[finite]), atol=1e-9)
    assert found[2, 1] == 0
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize("kind", ["hinge", "logistic"])
def test_descent_takes_on_the_teachers_order_and_only_the_order_matters(kind):
    student, teacher = np.random.default_rng(1).standard_normal((2, 1, 6))
    want = pairwise_ranking(student, teacher, kind)
    assert pairwise_ranking(student, np.exp(3 * teacher), kind).gradient.tobytes() == want.gradient.tobytes()
    for _ in range(500):
        student -= pairwise_ranking(student, teacher, kind).gradient
    np.testing.assert_array_equal(student.argsort(), teacher.argsort())
    if kind == "hinge":
        assert pairwise_ranking(student, teacher, margin=0.0).value == 0


def test_known_values():
    found = pairwise_ranking(np.array([[2.0, 2.0]]), np.array([[1.0, 0.0]]))
    assert found.value == 1 and found.gradient.tolist() == [[-1, 1]]
    met = pairwise_ranking(np.array([[2.0, 1.0]]), np.array([[1.0, 0.0]]))
    assert met.value == 0 and met.gradient.tolist() == [[0, 0]]
    even = pairwise_ranking(np.array([[2.0, 2.0]]), np.array([[1.0, 0.0]]), "logistic")
    np.testing.assert_allclose([even.value, *even.gradient[0]], [np.log(2), -0.5, 0.5])
    far = pairwise_ranking(np.array([[-1e4, 1e4]]), np.array([[1.0, 0.0]]), "logistic")
    assert far.value == 2e4 and far.gradient.tolist() == [[-1, 1]]


def test_a_row_without_pairs_does_not_count():
    student, teacher = np.random.default_rng(2).standard_normal((2, 3, 4))
    teacher[1] = 5
    found = pairwise_ranking(student, teacher, weights=[1.0, 7.0, 2.0])
    want = pairwise_ranking(student[[0, 2]], teacher[[0, 2]], weights=[1.0, 2.0])
    assert found.value == want.value and found.info["total_weight"] == 3 and not found.gradient[1].any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "square"}, "kind must be one of hinge, logistic"),
        ({"margin": np.inf}, "margin must lie in"),
        ({"teacher": np.zeros((2, 4))}, r"teacher must have shape \(2, 3\)"),
        ({"student": np.zeros((2, 0)), "teacher": np.zeros((2, 0))}, "at least one column"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        pairwise_ranking(**{"student": np.zeros((2, 3)), "teacher": np.zeros((2, 3)), **change})
