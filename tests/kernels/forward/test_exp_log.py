"""exp and log against float64, on every level."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from fastdistill.kernels import exp_log, set_isa
from fastdistill.testing import strategies
from fastdistill.testing.cases.forward.exp_log import check


@given(case=strategies.exp_log())
def test_matches_reference(isa, case):
    check(case)


def test_exp_is_within_two_ulp(isa):
    check({"x": np.linspace(-86.9, 88.7, 200_001).astype(np.float32)})


def test_log_is_within_two_ulp(isa):
    x = np.concatenate([np.geomspace(1.2e-38, 3e38, 100_001), np.linspace(0.5, 2, 100_001)]).astype(np.float32)
    check({"x": x})


def test_exp_of_doubles_is_within_one_ulp(isa):
    check({"x": np.concatenate([np.linspace(-708, 708, 200_001), np.linspace(-1, 1, 100_001)])})


def test_log_of_doubles_is_within_two_ulp(isa):
    check({"x": np.concatenate([np.geomspace(2.3e-308, 1.7e308, 100_001), np.linspace(0.5, 2, 100_001)])})


def test_exp_of_doubles_at_the_edges(isa):
    odd = np.array([0x7FF8000000000001, 0xFFF0000000000123], np.uint64).view(
        np.float64
    )  # NaNs with something in their last bits
    x = np.array([-np.inf, -1e300, -708.1, 0, 709, np.inf, np.nan, *odd])
    most = exp_log(np.array([708.0]))[0][0]
    np.testing.assert_array_equal(exp_log(x)[0], [0, 0, 0, 1, most, most, np.nan, np.nan, np.nan])


def test_exp_at_the_edges(isa):
    x = np.array([-np.inf, -1e30, -87, 0, 88.8, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(exp_log(x)[0], np.array([0, 0, 0, 1, np.inf, np.inf, np.inf, np.nan], np.float32))


def test_same_bits_on_every_level(isa):
    doubles = np.random.default_rng(1).uniform(1e-3, 80, 10_000)
    for x in doubles, doubles.astype(np.float32):
        got = exp_log(x) + exp_log(-x)[:1]
        set_isa("scalar")
        want = exp_log(x) + exp_log(-x)[:1]
        set_isa(isa)
        for a, b in zip(got, want, strict=True):
            assert a.tobytes() == b.tobytes()
