"""Averages of weights over time, and arcs between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import ema, slerp
from fastdistill.errors import ArgumentError

dtypes = st.sampled_from([np.float32, np.float64])


@st.composite
def two(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from([(), (1,), (2, 3), (0,), (4, 1, 2)]))
    return tuple(np.asarray(random.standard_normal(shape)) for _ in range(2))


@given(arrays=two(), decay=st.floats(0, 1), dtype=dtypes)
def test_an_average_over_time(arrays, decay, dtype):
    target, source = ({"a": np.asarray(array, dtype), "b": np.ones(2, dtype) * i} for i, array in enumerate(arrays))
    found = ema(target, source, decay)
    assert list(found) == ["a", "b"]
    for name, array in found.items():
        want = decay * target[name].astype(np.float64) + (1 - decay) * source[name].astype(np.float64)
        np.testing.assert_array_equal(array, want.astype(dtype))
        assert array.dtype == dtype and not np.shares_memory(array, target[name])


def test_ends_of_the_average_are_copies():
    target, source = {"a": np.array([0.1, -0.0])}, {"a": np.array([np.inf, 3.0])}
    assert ema(target, source, 1.0)["a"].tobytes() == target["a"].tobytes()
    assert ema(target, source, 0.0)["a"].tobytes() == source["a"].tobytes()
    assert ema({}, {}, 0.5) == {}


def test_many_steps_of_a_still_student_end_at_it():
    teacher, student = {"w": np.zeros(3)}, {"w": np.arange(3.0)}
    for _ in range(50):
        teacher = ema(teacher, student, 0.9)
    np.testing.assert_allclose(teacher["w"], student["w"] * (1 - 0.9**50), rtol=1e-13)


@given(arrays=two(), t=st.floats(0, 1))
def test_an_arc_is_the_same_from_both_ends(arrays, t):
    a, b = arrays
    if a.size <= 1:
        a, b = np.asarray(np.abs(a)), np.asarray(np.abs(b))  # in one dimension other signs are opposite directions
    np.testing.assert_allclose(slerp(a, b, t), slerp(b, a, 1 - t), rtol=0, atol=1e-12)
    assert slerp(a, b, 0.0).tobytes() == a.tobytes() and slerp(a, b, 1.0).tobytes() == b.tobytes()


@given(seed=st.integers(0, 2**32), t=st.floats(0, 1), dtype=dtypes)
def test_arrays_of_one_length_keep_it_and_the_angle_is_shared(seed, t, dtype):
    a, b = np.random.default_rng(seed).standard_normal((2, 3, 4))
    a, b = 2 * a / np.linalg.norm(a), 2 * b / np.linalg.norm(b)
    found = slerp(a.astype(dtype), b.astype(dtype), t)
    assert found.dtype == dtype
    unit = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(np.linalg.norm(found), 2, rtol=unit)
    angle = np.arccos((a * b).sum() / 4)
    np.testing.assert_allclose((found * a).sum() / 4, np.cos(t * angle), rtol=0, atol=unit)


def test_a_quarter_of_a_circle():
    found = slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 1 / 3)
    np.testing.assert_allclose(found, [np.cos(np.pi / 6), np.sin(np.pi / 6)], rtol=1e-15)
    longer = slerp(np.array([1.0, 0.0]), np.array([0.0, 3.0]), 0.5)
    np.testing.assert_allclose(longer, np.array([1, 3]) * np.sqrt(0.5), rtol=1e-15)  # not of unit vectors


@np.errstate(all="raise")
def test_no_angle_is_a_straight_way():
    a = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(slerp(a, a, 0.3), a, rtol=1e-15)
    np.testing.assert_allclose(slerp(a, 3 * a, 0.25), 1.5 * a, rtol=1e-15)
    np.testing.assert_allclose(slerp(a, a * (1 + 1e-12 * np.arange(3)), 0.5), a, rtol=1e-11)
    np.testing.assert_array_equal(slerp(np.zeros(3), a, 0.25), 0.25 * a)
    np.testing.assert_array_equal(slerp(np.zeros(3), np.zeros(3), 0.25), np.zeros(3))
    near, far = np.array([1.0, 0.0]), np.array([1.0, 1e-6])
    np.testing.assert_allclose(slerp(near, far, 0.5), [1, 5e-7], rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ema([1], {}, 0.5), "target must map names to arrays"),
        (lambda: ema({"a": np.zeros(2)}, {"b": np.zeros(2)}, 0.5), "must have the same names; only one has 'a', 'b'"),
        (lambda: ema({"a": np.zeros(2)}, {"a": np.zeros(3)}, 0.5), r"source\['a'\] must have shape \(2,\)"),
        (lambda: ema({"a": np.zeros(2)}, {"a": np.zeros(2, np.float32)}, 0.5), "must have dtype float64 as target has"),
        (lambda: ema({"a": np.zeros(2, int)}, {"a": np.zeros(2, int)}, 0.5), r"target\['a'\] must have dtype float32 or float64"),
        (lambda: ema({}, {}, 1.5), "decay must lie in 0..1"),
        (lambda: slerp(np.ones(2), -np.ones(2), 0.5), "a and b must not point in opposite directions"),
        (lambda: slerp(np.ones(2), np.ones(3), 0.5), r"b must have shape \(2,\)"),
        (lambda: slerp(np.ones(2), np.ones(2), 1.5), "t must lie in 0..1"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
