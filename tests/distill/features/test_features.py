"""Feature losses: by formula, by differences with and without a projector, and where lengths or differences are 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import feature_loss, layer_map, standardise
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes

KINDS = ["mse", "smooth_l1", "unit_l1", "normalised_mse", "cosine"]


def formula(kind, z, t, beta):
    """Of one row."""
    if kind == "mse":
        return np.mean((z - t) ** 2)
    if kind == "smooth_l1":
        return np.mean([r * r / (2 * beta) if abs(r) < beta else abs(r) - beta / 2 for r in z - t])
    a, b = z / np.linalg.norm(z), t / np.linalg.norm(t)
    return {"unit_l1": np.mean(abs(a - b)), "normalised_mse": np.mean((a - b) ** 2), "cosine": 1 - a @ b}[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32), beta=st.sampled_from([0.3, 1.0, 2.0]), projected=st.booleans())
def test_is_the_formula(kind, seed, beta, projected):
    random = np.random.default_rng(seed)
    student, teacher = random.standard_normal((3, 5)), random.standard_normal((3, 4 if projected else 5))
    projector = random.standard_normal((4, 5)) if projected else None
    found = feature_loss(student, teacher, kind, projector=projector, beta=beta)
    z = student @ projector.T if projected else student
    want = [formula(kind, *row, beta) for row in zip(z, teacher, strict=True)]
    np.testing.assert_allclose(found.rows, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_gradients_are_the_derivatives(kind, projected, beta):
    random = np.random.default_rng(0)
    student, teacher = random.standard_normal((3, 5)), random.standard_normal((3, 4 if projected else 5))
    projector = random.standard_normal((4, 5)) if projected else None
    settings = {"kind": kind, "beta": beta, "weights": [1.0, 0.5, 2.0]}
    found = feature_loss(student, teacher, projector=projector, **settings).gradient
    by_student = slopes(lambda at: feature_loss(at, teacher, projector=projector, **settings).value, student)
    np.testing.assert_allclose(found.student, by_student, atol=1e-9)
    if not projected:
        assert found.projector is None
        if kind in ("unit_l1", "normalised_mse", "cosine"):
            np.testing.assert_allclose((found.student * student).sum(axis=1), 0, atol=1e-15)
        return
    by_projector = slopes(lambda at: feature_loss(student, teacher, projector=at, **settings).value, projector)
    np.testing.assert_allclose(found.projector, by_projector, atol=1e-9)


@given(seed=st.integers(0, 2**32), length=st.sampled_from([1e-3, 1.0, 1e200]))
def test_kinds_that_divide_by_lengths_do_not_see_them(seed, length):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 3, 5))
    for kind in ("unit_l1", "normalised_mse", "cosine"):
        want, found = (feature_loss(student * scale, teacher * scale, kind) for scale in (1.0, length))
        np.testing.assert_allclose(found.rows, want.rows, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(found.gradient.student * length, want.gradient.student, rtol=1e-9, atol=1e-13)
    assert (feature_loss(student, teacher, "unit_l1").rows <= 2 / np.sqrt(5)).all()


def test_kinds_beside_each_other():
    student, teacher = np.random.default_rng(1).standard_normal((2, 4, 6))
    mse, bowl = feature_loss(student, teacher), feature_loss(student, teacher, "smooth_l1", beta=1e6)
    np.testing.assert_allclose(bowl.rows, mse.rows / 2e6, rtol=1e-12)
    np.testing.assert_allclose(bowl.gradient.student, mse.gradient.student / 2e6, rtol=1e-12)
    cosine, normalised = feature_loss(student, teacher, "cosine"), feature_loss(student, teacher, "normalised_mse")
    np.testing.assert_allclose(normalised.rows, 2 * cosine.rows / 6, rtol=1e-12)
    np.testing.assert_allclose(normalised.gradient.student, cosine.gradient.student / 3, rtol=1e-10)
    lines = feature_loss(student, teacher, "smooth_l1", beta=0.0)
    np.testing.assert_allclose(lines.rows, np.abs(student - teacher).mean(axis=1), rtol=1e-14)
    np.testing.assert_array_equal(lines.gradient.student, np.sign(student - teacher) / 24)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_apart_where_student_is_teacher(kind):
    teacher = np.random.default_rng(2).standard_normal((3, 5))
    found = feature_loss(teacher.copy(), teacher, kind, projector=np.eye(5))
    np.testing.assert_allclose(found.rows, 0, atol=1e-15)
    np.testing.assert_allclose(found.gradient.student, 0, atol=1e-15)
    np.testing.assert_allclose(found.gradient.projector, 0, atol=1e-15)


def test_corners():
    """|difference| of exactly beta; rows of zeros."""
    met = feature_loss(np.array([[1.0, -1.0]]), np.zeros((1, 2)), "smooth_l1")
    assert met.value == 0.5 and met.gradient.student.tolist() == [[0.5, -0.5]]
    for kind, want in (("unit_l1", 0.5), ("normalised_mse", 0.5), ("cosine", 1.0)):
        with np.errstate(all="raise"):
            found = feature_loss(np.zeros((1, 2)), np.array([[0.0, 3.0]]), kind)
            other = feature_loss(np.array([[0.0, 3.0]]), np.zeros((1, 2)), kind)
        assert found.value == other.value == want
        assert not found.gradient.student.any() and not other.gradient.student.any()


def test_hidden_targets_of_masked_patches_do_not_matter():
    """A masked autoencoder's reconstruction: the mean over masked patches."""
    random = np.random.default_rng(3)
    predicted, pixels = random.standard_normal((2, 8, 3))
    removed = np.array([1.0, 0, 1, 1, 0, 1, 1, 0])
    found = feature_loss(predicted, pixels, weights=removed)
    want = (removed * ((predicted - pixels) ** 2).mean(axis=1)).sum() / removed.sum()
    np.testing.assert_allclose(found.value, want, rtol=1e-13)
    pixels[removed == 0] = 99
    assert feature_loss(predicted, pixels, weights=removed).value == found.value


def test_a_projector_learns_a_linear_teacher():
    random = np.random.default_rng(4)
    student, truth = random.standard_normal((50, 4)), random.standard_normal((3, 4))
    projector = np.zeros((3, 4))
    for _ in range(300):
        projector -= feature_loss(student, student @ truth.T, projector=projector).gradient.projector
    np.testing.assert_allclose(projector, truth, atol=1e-6)


# ---- whitened targets ----
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1.0, 1e3]))
def test_standardised_rows_have_no_mean_and_a_variance_of_one(seed, scale):
    features = np.random.default_rng(seed).standard_normal((3, 16)) * scale + 5 * scale
    found = standardise(features, epsilon=1e-12)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose((found**2).mean(axis=1), 1, rtol=1e-10)
    want = (features - features.mean(1, keepdims=True)) / np.sqrt(features.var(1, keepdims=True) + 1e-12)
    np.testing.assert_allclose(found, want, rtol=1e-12)
    assert standardise(features.astype(np.float32)).dtype == np.float32


def test_standardised_edges():
    assert not standardise(np.full((1, 4), 7.0)).any()
    assert standardise(np.zeros((0, 3))).shape == (0, 3)
    np.testing.assert_allclose(standardise(np.array([[0.0, 2.0]]), epsilon=3.0), [[-0.5, 0.5]])
    for call, error, text in (
        (lambda: standardise(np.zeros((2, 0))), ArgumentError, "at least one column"),
        (lambda: standardise(np.zeros((2, 2)), epsilon=0), ArgumentError, "epsilon must lie in"),
        (lambda: standardise(np.array([[0.0], [np.nan]])), NotFiniteError, "features: row 1 holds"),
    ):
        with pytest.raises(error, match=text):
            call()


# ---- layers ----
def test_layer_maps():
    assert layer_map("skip", 4, 12).tolist() == [2, 5, 8, 11]
    assert layer_map("skip", 5, 12).tolist() == [1, 3, 6, 8, 11]
    assert layer_map("last", 4, 12).tolist() == [8, 9, 10, 11]
    for student in range(1, 9):
        for teacher in range(student, 20):
            for kind in ("skip", "last"):
                found = layer_map(kind, student, teacher)
                assert found.dtype == np.int32 and len(found) == student and found[-1] == teacher - 1
                assert found[0] >= 0 and (np.diff(found) > 0).all()
            gaps = np.diff(layer_map("skip", student, teacher), prepend=-1)
            assert gaps.max() - gaps.min() <= 1
    for arguments, text in (
        (("first", 1, 1), "kind must be one of skip, last"),
        (("skip", 5, 4), "student_layers must lie in 1..4"),
        (("skip", 0, 4), "student_layers must lie in 1..4"),
        (("last", 1, 0), "teacher_layers must lie in"),
    ):
        with pytest.raises(ArgumentError, match=text):
            layer_map(*arguments)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"kind": "huber"}, ArgumentError, "kind must be one of mse, smooth_l1"),
        ({"teacher": np.zeros((2, 4))}, ArgumentError, r"teacher must have shape \(2, 3\)"),
        ({"teacher": np.zeros((2, 4)), "projector": np.zeros((3, 4))}, ArgumentError, r"projector must have shape \(4, 3\)"),
        ({"student": np.zeros((2, 0)), "teacher": np.zeros((2, 0))}, ArgumentError, "teacher must have at least one column"),
        ({"beta": -1}, ArgumentError, "beta must lie in"),
        ({"projector": np.full((3, 3), np.nan)}, NotFiniteError, "projector: row 0 holds"),
    ],
)  # fmt: skip
def test_refuses(change, error, text):
    with pytest.raises(error, match=text):
        feature_loss(**({"student": np.zeros((2, 3)), "teacher": np.zeros((2, 3))} | change))
