"""softmax and its gradient against their references, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import isa_levels, set_isa, softmax, softmax_gradient
from fastdistill.reference.transport.softmax import softmax as reference_softmax
from fastdistill.reference.transport.softmax import softmax_gradient as reference_softmax_gradient

WIDTHS = [1, 2, 15, 16, 17, 33, 1000]  # lanes, one under, at and over, and one long row


@st.composite
def cases(draw):
    """Rows in 0 to 2 dimensions, of both dtypes, some of them with bans; and a temperature."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (*draw(st.lists(st.integers(0, 3), max_size=2)), draw(st.sampled_from(WIDTHS)))
    z = random.standard_normal(shape) * draw(st.sampled_from([0.0, 1.0, 30.0])) + draw(st.sampled_from([0.0, -300.0]))
    z[..., 1:][random.random(z[..., 1:].shape) < draw(st.sampled_from([0, 0.6]))] = -np.inf
    return z.astype(draw(st.sampled_from([np.float32, np.float64]))), draw(st.sampled_from([0.25, 1.0, 2.0, 3.1]))


@given(case=cases())
def test_matches_reference(isa, case):
    z, temperature = case
    got, want = softmax(z, temperature), reference_softmax(z, temperature)
    assert got.dtype == z.dtype
    # The exponent rounds twice, relative; exp is within 2 ulp; the quotient rounds, the sum before it.  What float32 has as less than
    # e^-86.98 is 0.
    unit = np.finfo(z.dtype).eps
    finite = np.where(np.isfinite(z), z, 0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        exponent = np.where(np.isfinite(z), (finite.max(axis=-1, keepdims=True) - finite) / temperature, 0)
    allowed = (6 + 2 * exponent) * unit * want + (2e-38 if z.dtype == np.float32 else 1e-300)
    assert (np.abs(got - want) <= allowed).all()
    np.testing.assert_array_equal(got[z == -np.inf], 0)


@given(case=cases())
def test_gradient_matches_reference(isa, case):
    z, temperature = case
    p = softmax(z, temperature)
    g = np.random.default_rng(0).standard_normal(z.shape).astype(z.dtype)
    want = reference_softmax_gradient(p, g, temperature, weight=3.0)
    got = softmax_gradient(p, g.copy(), temperature, weight=3.0)
    size = np.abs(g).max(initial=0)
    assert (np.abs(got - want) <= 4 * np.finfo(z.dtype).eps * 3 / temperature * p * 2 * size + 1e-300).all()


@given(case=cases())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    g = np.random.default_rng(0).standard_normal(case[0].shape).astype(case[0].dtype)
    want = softmax(*case)
    want_gradient = softmax_gradient(want, g.copy())
    for level in isa_levels():
        set_isa(level)
        assert softmax(*case, threads=3).tobytes() == want.tobytes()
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
