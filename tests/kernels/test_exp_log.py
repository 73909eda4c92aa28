"""exp and log against float64, on every level."""

from __future__ import annotations

import numpy as np

from fastdistill.kernels import exp_log, set_isa
from fastdistill.reference.exp_log import exp_log as reference_exp_log


def ulps(got, want):
    return np.abs(got.astype(np.float64) - want) / np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)


def test_exp_is_within_two_ulp(isa):
    x = np.linspace(-86.9, 88.7, 200_001).astype(np.float32)
    assert ulps(exp_log(x)[0], reference_exp_log(x)[0]).max() <= 2


def test_log_is_within_two_ulp(isa):
    x = np.concatenate([np.geomspace(1.2e-38, 3e38, 100_001), np.linspace(0.5, 2, 100_001)]).astype(np.float32)
    assert ulps(exp_log(x)[1], reference_exp_log(x)[1]).max() <= 2


def test_exp_at_the_edges(isa):
    x = np.array([-np.inf, -1e30, -87, 0, 88.8, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(exp_log(x)[0], np.array([0, 0, 0, 1, np.inf, np.inf, np.inf, np.nan], np.float32))


def test_same_bits_on_every_level(isa):
    x = np.random.default_rng(1).uniform(1e-3, 80, 10_000).astype(np.float32)
    got = exp_log(x) + exp_log(-x)[:1]
    set_isa("scalar")
    want = exp_log(x) + exp_log(-x)[:1]
    set_isa(isa)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))
