"""residual_distribution against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import residual_distribution, set_isa
from fastdistill.testing import strategies
from fastdistill.testing.cases.verify.residual_distribution import check


@given(case=strategies.residual_distribution())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.residual_distribution())
def test_same_bits_on_every_level(isa, case):
    r, mass = residual_distribution(**case)
    set_isa("scalar")
    want, want_mass = residual_distribution(**case)
    set_isa(isa)
    np.testing.assert_array_equal(r.view(np.int32), want.view(np.int32))
    assert mass == want_mass


@given(case=strategies.residual_distribution())
def test_is_zero_where_p_is_and_where_a_p_is_not_above_q(isa, case):
    p, q, a = case.values()
    r, mass = residual_distribution(p, q, a)
    none = np.float64(np.float32(a)) * p <= q  # 24 by 24 bits: the product is exact
    zero = np.float64(p) == 0  # 32-bit ARM: NumPy compares float32 with subnormals flushed
    assert not r[none | zero].view(np.int32).any(), "+0"
    assert (r[~none] >= 0).all() and mass >= 0
    r, mass = residual_distribution(p, p)
    assert mass == 0 and not r.view(np.int32).any()
    np.testing.assert_array_equal(residual_distribution(p, np.zeros_like(p))[0], p)


@given(case=strategies.residual_distribution())
def test_mass_is_one_minus_the_overlap(isa, case):
    """sum max(p - q, 0) = sum p - sum min(p, q): what a draft from q is refused with."""
    p, q = (case[name].astype(np.float64) for name in "pq")
    _, mass = residual_distribution(case["p"], case["q"])
    assert mass == pytest.approx(p.sum() - np.minimum(p, q).sum(), rel=0, abs=2.0**-23)


@given(case=strategies.residual_distribution())
def test_writes_nothing_outside_its_output(isa, case):
    laws = [case["p"], case["q"]]
    memory, before = np.full(len(laws[0]) + 32, -7, np.float32), [row.copy() for row in laws]
    r, _ = residual_distribution(**case, out=memory[16:-16])
    assert (memory[:16] == -7).all() and (memory[-16:] == -7).all() and np.shares_memory(r, memory)
    np.testing.assert_array_equal(r, residual_distribution(**case)[0])
    np.testing.assert_array_equal(laws, before)


@given(
    case=strategies.residual_distribution(), name=st.sampled_from("pq"), where=st.floats(0, 1, exclude_max=True),
    bad=st.sampled_from([np.nan, -np.nan, np.inf, -np.inf, -1e-45, -3.0]),
)  # fmt: skip
def test_names_the_entry_that_is_no_probability(isa, case, name, where, bad):
    at = int(where * len(case[name]))
    case[name][at] = bad
    error = NotFiniteError if not np.isfinite(bad) else ArgumentError
    with pytest.raises(error, match=rf"residual_distribution: {name}\[{at}\] must be finite and not negative, got"):
        residual_distribution(case["p"], case["q"])


def test_reports_an_overflow(isa):
    p, q = np.full(40, 1e30, np.float32), np.zeros(40, np.float32)
    with pytest.raises(NotFiniteError, match="residual_distribution: p and q overflow"):
        residual_distribution(p, q, 1e30)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"p": np.zeros(40)}, "p must have dtype float32, got float64"),
        ({"p": np.zeros((1, 40), np.float32)}, r"p must have shape \(vocab,\), got \(1, 40\)"),
        ({"p": np.zeros(0, np.float32)}, "p must have at least one entry"),
        ({"q": np.zeros(39, np.float32)}, r"q must have shape \(40,\), got \(39,\)"),
        ({"q": np.zeros(80, np.float32)[::2]}, "q must be C-contiguous"),
        ({"a": 0.0}, "a must lie in"),
        ({"a": np.nan}, "a must lie in .*, got nan"),
        ({"a": "1"}, "a must be a number, got '1'"),
        ({"out": np.zeros(41, np.float32)}, r"out must have shape \(40,\), got \(41,\)"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        residual_distribution(**({"p": np.zeros(40, np.float32), "q": np.zeros(40, np.float32)} | change))


def test_refuses_an_output_that_overlaps_an_input():
    memory = np.zeros(60, np.float32)
    with pytest.raises(ArgumentError, match="out must not overlap p"):
        residual_distribution(memory[:40], np.zeros(40, np.float32), out=memory[20:])
