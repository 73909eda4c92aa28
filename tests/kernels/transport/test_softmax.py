"""softmax and its gradient against their references, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import isa_levels, set_isa, softmax, softmax_gradient
from fastdistill.testing import strategies
from fastdistill.testing.cases.transport import softmax_gradient as softmax_gradient_cases
from fastdistill.testing.cases.transport.softmax import check


@given(case=strategies.softmax())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.softmax_gradient())
def test_gradient_matches_reference(isa, case):
    softmax_gradient_cases.check(case)


@given(case=strategies.softmax())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    g = np.random.default_rng(0).standard_normal(case["logits"].shape).astype(case["logits"].dtype)
    want = softmax(**case)
    want_gradient = softmax_gradient(want, g.copy())
    for level in isa_levels():
        set_isa(level)
        assert softmax(**case, threads=3).tobytes() == want.tobytes()
        assert softmax_gradient(want, g.copy(), threads=3).tobytes() == want_gradient.tobytes()
    set_isa(isa)


def test_gradient_is_the_derivative(isa):
    random = np.random.default_rng(0)
    z, g, along = random.standard_normal((3, 2, 20))
    step = 1e-6
    slope = ((softmax(z + step * along, 1.5) - softmax(z - step * along, 1.5)) * g).sum() / (2 * step)
    np.testing.assert_allclose((softmax_gradient(softmax(z, 1.5), g.copy(), 1.5) * along).sum(), slope, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 7, 39])
def test_reports_what_is_not_finite(isa, dtype, bad, where):
    z = np.zeros((2, 40), dtype)
    z[1, where] = bad
    with pytest.raises(NotFiniteError, match="softmax"):
        softmax(z)
    with pytest.raises(NotFiniteError):
        softmax(np.full((1, 40), -np.inf, dtype))


def test_a_nan_with_a_payload_is_one_too(isa):
    z = np.zeros((1, 20))
    z.view(np.uint64)[0, 3] = 0x7FF8000000000001
    with pytest.raises(NotFiniteError):
        softmax(z)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: softmax(np.zeros((2, 3), np.int32)), "logits must have dtype float32"),
        (lambda: softmax(np.zeros((2, 0))), "one column"),
        (lambda: softmax(np.zeros((2, 3)), 0.0), "temperature must lie in"),
        (lambda: softmax_gradient(np.zeros((2, 3)), np.zeros((2, 3), np.float32)), "gradient must have dtype float64"),
        (lambda: softmax_gradient(np.zeros((2, 3)), np.zeros((3, 2))), "gradient must have shape"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
