"""top_k against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import set_isa, top_k
from fastdistill.reference.distill.top_k import top_k as reference_top_k
from fastdistill.testing import strategies
from fastdistill.testing.cases.distill.top_k import check


@given(case=strategies.top_k())
def test_matches_reference(isa, case):
    check(case)


@pytest.mark.parametrize("k", [1, 10, 100, 999])
def test_logits_a_hair_above_the_worst_are_found(isa, k):
    z = np.random.default_rng(k).standard_normal((5, 1000)).astype(np.float32)
    z[1].sort()  # each better than all before
    z[2] = np.nextafter(np.float32(1), np.float32(2)) if k % 2 else 1
    z[2, ::3] = 1
    for found, want in zip(top_k(z, k), reference_top_k(z, k), strict=True):
        np.testing.assert_array_equal(found, want)


@given(case=strategies.top_k())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    got = top_k(**case, threads=3)
    set_isa("scalar")
    want = top_k(**case)
    set_isa(isa)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, want, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 7, 39])
def test_reports_what_is_not_finite(isa, bad, where):
    z = np.arange(80, dtype=np.float32).reshape(2, 40)
    z[1, where] = bad
    with pytest.raises(NotFiniteError, match="top_k: row 1"):
        top_k(z, 2)
    with pytest.raises(NotFiniteError, match="every token is banned"):
        top_k(np.full((1, 40), -np.inf, np.float32), 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"logits": np.zeros((2, 3))}, "logits must have dtype float32"),
        ({"logits": np.zeros((2, 0), np.float32)}, "at least one column"),
        ({"k": 0}, r"k must lie in 1\.\.3"),
        ({"k": 4}, r"k must lie in 1\.\.3"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        top_k(**{"logits": np.zeros((2, 3), np.float32), "k": 2, **change})
