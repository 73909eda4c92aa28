"""adamw_step against its reference, on every level."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError
from fastdistill.kernels import adamw_step, isa_levels, set_isa
from fastdistill.testing import strategies
from fastdistill.testing.cases.train.adamw_step import ARRAYS, check, stepped


@given(case=strategies.adamw_step())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.adamw_step())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    want = [array.tobytes() for array in stepped(case)]
    for level in isa_levels():
        set_isa(level)
        assert [array.tobytes() for array in stepped(case, partial(adamw_step, threads=3))] == want
    set_isa(isa)


@given(case=strategies.adamw_step())
def test_an_element_depends_on_its_own_alone(isa, case):
    """Between guards, a NaN in one element: its own outputs are NaN, all others keep their bits."""
    want, n = stepped(case), len(case["value"])
    memory = np.full((4, n + 34), 7, np.float32)
    inside = memory[:, 17:-17]
    inside[:] = [case[name] for name in ARRAYS]
    at = n // 2
    inside[1, at : at + 1] = np.nan
    adamw_step(**case | dict(zip(ARRAYS, inside, strict=True)))
    assert (memory[:, :17] == 7).all() and (memory[:, -17:] == 7).all()
    assert np.isnan(inside[[0, 2, 3], at : at + 1]).all()
    for got, array in zip(inside, want, strict=True):
        assert np.delete(got, [at][: len(got)]).tobytes() == np.delete(array, [at][: len(array)]).tobytes()


def test_the_first_step_is_as_long_as_the_learning_rate(isa):
    """Its means are the gradient and its square, so each value goes by learning_rate sign(gradient)."""
    value, first, second = np.ones(5, np.float32), np.zeros(5, np.float32), np.zeros(5, np.float32)
    gradient = np.float32([1e-3, -1e-3, 5, -70, 0])
    adamw_step(value, gradient, first, second, step=1, learning_rate=0.25, epsilon=1e-30)
    np.testing.assert_allclose(value, [0.75, 1.25, 0.75, 1.25, 1], rtol=4e-7)


def test_without_a_gradient_the_values_decay(isa):
    value, zeros = np.ones(3, np.float32), np.zeros((3, 3), np.float32)
    for step in range(1, 11):
        adamw_step(value, *zeros, step=step, learning_rate=0.1, weight_decay=0.5)
    np.testing.assert_allclose(value, 0.95**10, rtol=10 * 2**-23)
    assert not zeros.any()


def test_moments_fade_to_zero_and_not_to_subnormal_numbers(isa):
    """Fused products of (1 - beta) stop at a few units of the smallest number, for which some CPUs take very long."""
    value, gradient, first, second = np.zeros((4, 20), np.float32)
    first[:], second[:] = 1e-28, 1e-35
    for step in range(1, 300):
        adamw_step(value, gradient, first, second, step=step, learning_rate=0.1, beta2=0.9)
    assert not first.any() and not second.any()
    gradient[:] = 1e-20
    adamw_step(value, gradient, first, second, step=300, learning_rate=0.1)
    assert first.all() and not second.any()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"value": np.zeros(4)}, "value must have dtype float32"),
        ({"value": np.zeros((2, 2), np.float32)}, r"value must have shape \(n,\)"),
        ({"first": np.zeros(5, np.float32)}, r"first must have shape \(4,\)"),
        ({"second": np.frombuffer(bytes(16), np.float32)}, "second must be writable"),
        ({"step": 0}, "step must lie in"),
        ({"beta1": 1.0}, "beta1 must lie in 0..0.999999"),
        ({"beta2": -0.1}, "beta2 must lie in"),
        ({"learning_rate": -1}, "learning_rate must lie in"),
        ({"learning_rate": np.nan}, "learning_rate must lie in"),
        ({"epsilon": 0.0}, "epsilon must lie in"),
        ({"weight_decay": -1.0}, "weight_decay must lie in"),
        ({"gradient_scale": np.inf}, "gradient_scale must lie in"),
        ({"zero_gradient": 1}, "zero_gradient must be True or False"),
    ],
)
def test_refuses(changed, text):
    arrays = dict(zip(("value", "gradient", "first", "second"), np.zeros((4, 4), np.float32), strict=True))
    with pytest.raises(ArgumentError, match=text):
        adamw_step(**(arrays | {"step": 1, "learning_rate": 0.1} | changed))


def test_arrays_must_lie_apart():
    memory = np.zeros(40, np.float32)
    others = np.zeros((2, 20), np.float32)
    with pytest.raises(ArgumentError, match="value must not overlap gradient"):
        adamw_step(memory[:20], memory[19:39], *others, step=1, learning_rate=0.1)
    with pytest.raises(ArgumentError, match="first must not overlap second"):
        adamw_step(*others, memory[:20], memory[:20], step=1, learning_rate=0.1)
