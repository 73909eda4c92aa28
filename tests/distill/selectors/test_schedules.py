"""Schedules at their ends, in the middle and behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import held_cosine, polynomial_decay
from fastdistill.errors import ArgumentError


@given(steps=st.integers(1, 300), held=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_stays_and_falls_to_its_end(steps, held):
    found = [held_cosine(step, steps, held=held) for step in range(steps + 2)]
    assert found[0] == pytest.approx(0.9, abs=1e-15) and found[-1] == found[-2] == 0.5
    assert all(value == found[0] for step, value in enumerate(found[:-2]) if step <= held * steps)
    assert (np.diff(found) <= 1e-15).all()


def test_the_middle_of_the_cosine_is_the_mean():
    np.testing.assert_allclose(held_cosine(55, 100), 0.7, rtol=1e-15)
    np.testing.assert_allclose(held_cosine(55, 100, start=0.0, end=1.0), 0.5, rtol=1e-15)


def test_polynomial_decay():
    np.testing.assert_allclose([polynomial_decay(step, 5) for step in range(7)], [0.1, 0.064, 0.036, 0.016, 0.004, 0, 0], rtol=1e-12, atol=1e-18)  # fmt: skip
    assert polynomial_decay(0, 5, start=0.3) == 0.3 and polynomial_decay(5, 5) == 0
    assert polynomial_decay(1, 2, power=1.0) == 0.05


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: held_cosine(-1, 5), "step must lie in"),
        (lambda: held_cosine(0, 0), "steps must lie in"),
        (lambda: held_cosine(0, 5, held=2.0), "held must lie in 0..1"),
        (lambda: held_cosine(0, 5, start="a"), "start must be a number"),
        (lambda: polynomial_decay(0, 5, power=0.0), "power must be above 0"),
        (lambda: polynomial_decay(0.5, 5), "step must be an integer"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
