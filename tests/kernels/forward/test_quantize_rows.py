"""quantize_rows against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import quantize_rows
from fastdistill.testing import strategies
from fastdistill.testing.cases.forward.quantize_rows import check


@given(case=strategies.quantize_rows())
def test_equals_reference_bit_for_bit(isa, case):
    check(case)


@given(case=strategies.quantize_rows())
def test_codes_are_within_half_a_step_and_never_minus_128(isa, case):
    x = case["x"]
    codes, scale, _, _ = quantize_rows(x)
    assert codes.min(initial=0) >= -127
    restored = (codes.reshape(*scale.shape, 32) * scale[..., None].astype(np.float64)).reshape(len(x), -1)[
        :, : x.shape[1]
    ]
    step = np.repeat(scale, 32, axis=1)[:, : x.shape[1]]
    # Half a step, the rounding of the quotient (127 eps steps), and blocks that are too small to have a scale.
    assert (np.abs(restored - x) <= step * (0.5 + 128 * 2.0**-24) + (step == 0) * 127 * 2.0**-126).all()


@given(
    case=strategies.quantize_rows(),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_reports_what_is_not_finite(isa, case, bad, where):
    x = case["x"]
    x.reshape(-1)[int(where * x.size)] = bad
    with pytest.raises(NotFiniteError, match="quantize_rows"):
        quantize_rows(x)


@pytest.mark.parametrize("x", [np.zeros((2, 3)), np.zeros(3, np.float32), [[1.0]]])
def test_refuses(x):
    with pytest.raises(ArgumentError, match=r"^x must"):
        quantize_rows(x)
