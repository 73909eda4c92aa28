"""A rounding mode that somebody else has set in this thread changes no bit."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform

import numpy as np
import pytest

from fastdistill.kernels import (
    Sampler,
    UnmaskRule,
    exp_log,
    expand_tree,
    gumbel_noise,
    linear,
    probabilities,
    quantize_rows,
    row_statistics,
    unmask_select,
)

UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())  # FE_UPWARD of fenv.h
NAME = ctypes.util.find_library("m")


@pytest.mark.skipif(UPWARD is None or NAME is None, reason="no fesetround known on this machine")
def test_the_callers_rounding_mode_changes_no_bit(isa):
    libm = ctypes.CDLL(NAME)
    x = np.random.default_rng(3).standard_normal((3, 320)).astype(np.float32)
    codes, scale = np.full((40, 320), 7, np.int8), np.full((40, 10), 0.01, np.float16)

    def everything():
        results = [
            *exp_log(np.abs(x[0])),
            *quantize_rows(x),
            *row_statistics(x),
            *expand_tree(x, x[:, 0].copy(), 9),
            probabilities(x, Sampler(0.75)),
            unmask_select(row_statistics(x.reshape(48, 20)), np.ones(48, bool), UnmaskRule("margin")).confidence,
            linear(x, "q8", codes, scale),
            linear(x, "f32", x),
        ]
        return [array.tobytes() for array in (*results, gumbel_noise(np.arange(2, dtype=np.int32), 500))]

    want = everything()
    before = libm.fegetround()
    assert libm.fesetround(UPWARD) == 0
    try:
        got = everything()
        assert libm.fegetround() == UPWARD  # and it is still the caller's
    finally:
        libm.fesetround(before)
    assert got == want
