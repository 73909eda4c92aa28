"""InfoNCE and UniSD's hinge: by their formulas, by differences, and where there is no slope."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import contrastive_hinge, cosine_similarity, cosine_similarity_gradient, info_nce
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


def cross_entropy(logits, label, keys):
    """Of one row, among these keys."""
    best = logits[keys].max()
    return best + np.log(np.exp(logits[keys] - best).sum()) - logits[label]


@given(seed=st.integers(0, 2**32), temperature=st.sampled_from([0.01, 0.5, 2.0]))
def test_is_the_cross_entropy_among_the_keys_that_are_negatives(seed, temperature):
    random = np.random.default_rng(seed)
    similarities, labels, groups = random.uniform(-1, 1, (4, 6)), np.array([1, 2, 3, 0]), random.integers(0, 3, 6)
    for exclude_self in (False, True):
        for given_groups in (None, groups):
            found = info_nce(
                similarities, labels, temperature=temperature, exclude_self=exclude_self, groups=given_groups
            )
            for row, label in enumerate(labels):
                keys = [
                    key
                    for key in range(6)
                    if key == label
                    or ((key != row or not exclude_self) and (given_groups is None or groups[key] != groups[label]))
                ]
                want = cross_entropy(similarities[row] / temperature, label, keys)
                np.testing.assert_allclose(found.rows[row], want, rtol=1e-12, atol=1e-13)
                left_out = np.setdiff1d(np.arange(6), keys)
                assert not found.gradient.similarities[row, left_out].any()
    assert info_nce(similarities).rows.tobytes() == info_nce(similarities, np.arange(4)).rows.tobytes()


@pytest.mark.parametrize("temperature", [0.2, 1.0, 2.0])
@pytest.mark.parametrize(
    "settings", [{}, {"exclude_self": True}, {"groups": [0, 1, 0, 2, 1]}, {"labels": [-100, 0, 1]}]
)
def test_gradients_are_the_derivatives(temperature, settings):
    similarities = np.random.default_rng(0).uniform(-1, 1, (3, 5))
    similarities[2, 4] = -np.inf
    finite = np.isfinite(similarities)
    settings = {"labels": [1, 2, 0], "weights": [1, 0.5, 2], **settings}

    def at(values, temperature=temperature):
        placed = similarities.copy()
        placed[finite] = values
        return info_nce(placed, temperature=temperature, **settings)

    found = at(similarities[finite]).gradient
    want = slopes(lambda values: at(values).value, similarities[finite])
    np.testing.assert_allclose(found.similarities[finite], want, atol=1e-8)
    np.testing.assert_allclose(found.similarities.sum(axis=1), 0, atol=1e-14)
    assert found.similarities[2, 4] == 0
    want = slopes(lambda t: at(similarities[finite], float(t[0])).value, np.array([temperature]))
    np.testing.assert_allclose(found.temperature, want[0], rtol=1e-6, atol=1e-8)


def test_embeddings_get_their_gradient_through_the_cosines():
    queries, keys = np.random.default_rng(1).standard_normal((2, 4, 3))

    def call(queries, keys):
        return info_nce(cosine_similarity(queries, keys))

    found = cosine_similarity_gradient(call(queries, keys).gradient.similarities, queries, keys)
    np.testing.assert_allclose(found.x, slopes(lambda at: call(at, keys).value, queries), atol=1e-6)
    np.testing.assert_allclose(found.y, slopes(lambda at: call(queries, at).value, keys), atol=1e-6)
    np.testing.assert_allclose((found.x * queries).sum(axis=1), 0, atol=1e-13)


def test_nt_xent_of_two_views():
    """2 N embeddings, each against all others: the sum of both gradients is the derivative."""
    views = np.random.default_rng(2).standard_normal((6, 4))
    other = np.roll(np.arange(6), 3)

    def call(views):
        return info_nce(cosine_similarity(views, views), other, temperature=0.5, exclude_self=True)

    both = cosine_similarity_gradient(call(views).gradient.similarities, views, views)
    np.testing.assert_allclose(both.x + both.y, slopes(lambda at: call(at).value, views), atol=1e-8)
    units = views / np.linalg.norm(views, axis=1, keepdims=True)
    exponentials = np.exp(units @ units.T / 0.5)
    np.fill_diagonal(exponentials, 0)
    want = -np.log(exponentials[np.arange(6), other] / exponentials.sum(axis=1))
    np.testing.assert_allclose(call(views).rows, want, rtol=1e-12)


def test_known_values():
    even = info_nce(np.zeros((4, 4)))
    np.testing.assert_allclose(even.value, np.log(4), rtol=1e-15)
    assert even.gradient.temperature == 0
    alone = info_nce(np.ones((1, 1)))
    assert alone.value == 0 and alone.gradient.similarities.tolist() == [[0]]
    sharp = info_nce(np.array([[1.0, -1.0]]), temperature=1e-6)
    assert sharp.value == 0 and not sharp.gradient.similarities.any()
    wrong = info_nce(np.array([[-1.0, 1.0]]), temperature=1e-6)
    np.testing.assert_allclose(wrong.value, 2e6)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"labels": [0, 3]}, ArgumentError, "labels must be tokens from 0 to 2"),
        ({"similarities": np.zeros((2, 0))}, ArgumentError, "at least one column"),
        ({"similarities": np.zeros((3, 2))}, ArgumentError, "labels must be given where queries, 3, are more than keys, 2"),
        ({"similarities": np.zeros((3, 2)), "labels": [0, 0, 0], "exclude_self": True}, ArgumentError, "exclude_self needs a key for each query"),
        ({"exclude_self": True}, ArgumentError, "exclude_self needs labels"),
        ({"exclude_self": True, "labels": [1, 1]}, ArgumentError, "labels must not name the query itself with exclude_self, got 1 there"),
        ({"groups": [1, 2]}, ArgumentError, r"groups must have shape \(3,\)"),
        ({"temperature": 0}, ArgumentError, "temperature must lie in"),
        ({"similarities": np.array([[0, 0, 0], [0, -np.inf, 0]])}, NotFiniteError, "similarities: row 1 holds -inf at its right key"),
        ({"similarities": np.array([[0, 1e300, 0], [0, 0, 0]]), "temperature": 1e-30}, NotFiniteError, "similarities: row 0 over temperature 1e-30 is beyond"),
    ],
)  # fmt: skip
def test_refuses(change, error, text):
    with pytest.raises(error, match=text):
        info_nce(**({"similarities": np.zeros((2, 3))} | change))


# ---- the hinge ----
@given(seed=st.integers(0, 2**32), margin=st.sampled_from([0.0, 0.5, 3.0]))
def test_hinge_is_its_formula_and_flat_outside_of_the_band(seed, margin):
    random = np.random.default_rng(seed)
    q, good, bad = -np.abs(random.standard_normal((3, 20))) * 3
    found = contrastive_hinge(q, good, bad, margin=margin)
    inner = margin + np.abs(q - good) - np.abs(q - bad)
    np.testing.assert_array_equal(found.rows, np.maximum(inner, 0))
    np.testing.assert_allclose(found.info["active"], (inner > 0).mean(), rtol=1e-15)
    within = (np.minimum(good, bad) < q) & (q < np.maximum(good, bad)) & (inner > 0)
    np.testing.assert_allclose(found.gradient * 20, np.where(within, np.where(good > bad, -2, 2), 0), rtol=1e-14)


def test_hinge_gradient_is_the_derivative():
    q, good, bad = -np.abs(np.random.default_rng(3).standard_normal((3, 40))) * 2
    found = contrastive_hinge(q, good, bad)
    assert np.unique(np.round(found.gradient * 40)).tolist() == [-2, 0, 2]
    np.testing.assert_allclose(found.gradient, slopes(lambda at: contrastive_hinge(at, good, bad).value, q), atol=1e-9)


def test_hinge_takes_what_is_impossible_as_very_unlikely():
    found = contrastive_hinge([-np.inf, -60.0, -1.0, -1.0], [-1.0, -1.0, -np.inf, -1.0], [-2.0, -2.0, -2.0, -np.inf])
    np.testing.assert_array_equal(found.rows, [1.5, 1.5, 48.5, 0])
    assert found.gradient.tolist() == [0, 0, 0, 0]
    pulled = contrastive_hinge([-np.inf, -40.0], [-1.0, -1.0], [-np.inf, -np.inf])
    assert pulled.gradient.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"margin": -1}, ArgumentError, "margin must lie in"),
        ({"log_bad": [0.0]}, ArgumentError, r"log_bad must have shape \(2,\)"),
        ({"log_q": [[0.0]]}, ArgumentError, r"log_q must have shape \(n,\)"),
        ({"log_good": [0.0, np.nan]}, NotFiniteError, "log_good: row 1 holds"),
    ],
)
def test_hinge_refuses(change, error, text):
    with pytest.raises(error, match=text):
        contrastive_hinge(**({"log_q": [-1, -1], "log_good": [-1, -1], "log_bad": [-1, -1]} | change))
