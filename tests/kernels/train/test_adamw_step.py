"""adamw_step against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError
from fastdistill.kernels import adamw_step, isa_levels, set_isa
from fastdistill.reference.train.adamw_step import adamw_step as reference_adamw_step

LENGTHS = [0, 1, 15, 16, 17, 33, 1000, 16384 + 17]  # lanes, one under, at and over, and more than a task
UNIT = 2.0**-24


@st.composite
def cases(draw):
    """The four arrays, gradients of many sizes and some of them 0, and settings."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    value, gradient, first, second = random.standard_normal((4, draw(st.sampled_from(LENGTHS))), np.float32)
    gradient *= draw(st.sampled_from([1e-4, 1.0, 30.0]))
    gradient[::3] = 0
    if draw(st.booleans()):
        first[:], second[:] = 0, 0
    settings = {
        "step": draw(st.sampled_from([1, 2, 1000, 10**9])),
        "learning_rate": draw(st.sampled_from([0.0, 1e-5, 0.5])),
        "beta1": draw(st.sampled_from([0.5, 0.9, 0.99])),
        "beta2": draw(st.sampled_from([0.5, 0.95, 0.999, 0.99999])),
        "epsilon": draw(st.sampled_from([1e-8, 1e-3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "gradient_scale": draw(st.sampled_from([1.0, 0.3])),
        "zero_gradient": draw(st.booleans()),
    }
    return (value, gradient, first, np.square(second)), settings


def stepped(arrays, settings, threads=1):
    arrays = [array.copy() for array in arrays]
    assert adamw_step(*arrays, **settings, threads=threads) is arrays[0]
    return arrays


@given(case=cases())
def test_matches_reference(isa, case):
    arrays, settings = case
    got, want = stepped(*case), reference_adamw_step(*arrays, **settings)
    np.testing.assert_array_equal(got[1], want[1])
    sizes = [np.abs(array.astype(np.float64)) for array in arrays]
    g = sizes[1] * abs(settings["gradient_scale"])
    # Two roundings of g and one each of the difference, the rate and the sum.
    first_error = 4 * UNIT * (g + sizes[2])
    assert (np.abs(got[2] - want[2]) <= first_error + 2.0**-100).all()
    # Four of g g, its product's, and these three; what is below 2^-126 is 0.
    assert (np.abs(got[3] - want[3]) <= 8 * UNIT * want[3] + 2.0**-125).all()
    # Those of first; of the denominator half of those of second, and of root, product, epsilon and sum four; quotient and step size.
    rate = settings["learning_rate"] / (1 - settings["beta1"] ** settings["step"])
    below = np.sqrt(want[3] / (1 - settings["beta2"] ** settings["step"])) + settings["epsilon"]
    decay = settings["learning_rate"] * settings["weight_decay"] * sizes[0]
    error = rate / below * (first_error + 12 * UNIT * np.abs(want[2])) + 4 * UNIT * decay + UNIT * np.abs(want[0])
    assert (np.abs(got[0] - want[0]) <= 1.01 * error + 1e-20).all()


@given(case=cases())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    want = [array.tobytes() for array in stepped(*case)]
    for level in isa_levels():
        set_isa(level)
        assert [array.tobytes() for array in stepped(*case, threads=3)] == want
    set_isa(isa)


@given(case=cases())
def test_an_element_depends_on_its_own_alone(isa, case):
    """Between guards, a NaN in one element: its own outputs are NaN, all others keep their bits."""
    arrays, settings = case
    want = stepped(*case)
    memory = np.full((4, len(arrays[0]) + 34), 7, np.float32)
    inside = memory[:, 17:-17]
    inside[:] = arrays
    at = len(arrays[0]) // 2
    inside[1, at : at + 1] = np.nan
    adamw_step(*inside, **settings)
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
