"""sgd_step against its reference, on every level."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError
from fastdistill.kernels import isa_levels, set_isa, sgd_step
from fastdistill.testing import strategies
from fastdistill.testing.cases.train.sgd_step import ARRAYS, check, stepped


def bits(arrays):
    return [None if array is None else array.tobytes() for array in arrays]


@given(case=strategies.sgd_step())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.sgd_step())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    want = bits(stepped(case))
    for level in isa_levels():
        set_isa(level)
        assert bits(stepped(case, partial(sgd_step, threads=3))) == want
    set_isa(isa)


@given(case=strategies.sgd_step())
def test_writes_nothing_but_its_arrays(isa, case):
    arrays = [case[name] for name in ARRAYS]
    memory = np.full((3, len(arrays[0]) + 34), 7, np.float32)
    inside = [None if array is None else part[17:-17] for array, part in zip(arrays, memory, strict=True)]
    for part, array in zip(inside, arrays, strict=True):
        if part is not None:
            part[:] = array
    sgd_step(**case | dict(zip(ARRAYS, inside, strict=True)))
    assert (memory[:, :17] == 7).all() and (memory[:, -17:] == 7).all() and bits(inside) == bits(stepped(case))


def test_velocity_gathers_and_a_nan_stays_where_it_is(isa):
    """Momentum 1/2 on a gradient of ones: 1, 3/2, 7/4, exactly."""
    value, gradient, velocity = np.zeros((3, 20), np.float32)
    gradient[:] = 1
    gradient[5] = np.nan
    for want in (1, 1.5, 1.75):
        before = value.copy()
        sgd_step(value, gradient, velocity, learning_rate=0.25, momentum=0.5)
        np.testing.assert_array_equal(np.delete(before - value, 5), 0.25 * want)
    assert np.isnan(value[5]) and np.isnan(velocity[5]) and np.isnan([value, velocity]).sum() == 2


def test_a_velocity_fades_to_zero(isa):
    value, gradient, velocity = np.zeros((3, 20), np.float32)
    velocity[:] = 1e-20
    for _ in range(300):
        sgd_step(value, gradient, velocity, learning_rate=0.1, momentum=0.8)
    assert not velocity.any()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"value": np.zeros(4)}, "value must have dtype float32"),
        ({"gradient": np.zeros(5, np.float32)}, r"gradient must have shape \(4,\)"),
        ({"velocity": None}, "velocity must be given where there is momentum"),
        ({"velocity": None, "momentum": 0.0, "nesterov": True}, "velocity must be given"),
        ({"velocity": np.zeros(3, np.float32)}, r"velocity must have shape \(4,\)"),
        ({"momentum": 1.5}, "momentum must lie in 0..1"),
        ({"learning_rate": np.inf}, "learning_rate must lie in"),
        ({"nesterov": None}, "nesterov must be True or False"),
        ({"decoupled": 0}, "decoupled must be True or False"),
    ],
)
def test_refuses(changed, text):
    arrays = dict(zip(("value", "gradient", "velocity"), np.zeros((3, 4), np.float32), strict=True))
    with pytest.raises(ArgumentError, match=text):
        sgd_step(**(arrays | {"learning_rate": 0.1, "momentum": 0.9} | changed))


def test_arrays_must_lie_apart():
    memory = np.zeros(40, np.float32)
    with pytest.raises(ArgumentError, match="value must not overlap gradient"):
        sgd_step(memory[:20], memory[19:39], learning_rate=0.1)
