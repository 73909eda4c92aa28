"""row_statistics against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import row_statistics, set_isa
from fastdistill.reference.forward.row_statistics import row_statistics as reference_row_statistics
from fastdistill.testing import strategies
from fastdistill.testing.cases.forward.row_statistics import check


@given(case=strategies.row_statistics())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.row_statistics())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    got = row_statistics(**case, threads=3)
    set_isa("scalar")
    want = row_statistics(**case)
    set_isa(isa)
    for field, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(field.view(np.int32), expected.view(np.int32))


@given(
    case=strategies.row_statistics(),
    bad=st.sampled_from([np.nan, np.inf, -np.nan]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_reports_what_is_not_finite(isa, case, bad, where):
    z = case["logits"]
    z.reshape(-1)[int(where * z.size)] = bad
    with pytest.raises(NotFiniteError, match="row_statistics"):
        row_statistics(z)


def test_a_row_of_bans_is_not_finite(isa):
    with pytest.raises(NotFiniteError):
        row_statistics(np.full((1, 40), -np.inf, np.float32))


@given(case=strategies.row_statistics())
def test_a_row_is_treated_alike_in_any_dimensions(isa, case):
    z = case["logits"]
    whole = row_statistics(z)
    for index in np.ndindex(z.shape[:-1]):
        for field, alone in zip(whole, row_statistics(z[index]), strict=True):
            np.testing.assert_array_equal(field[index].view(np.int32), alone.view(np.int32))


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3, 2)])
def test_no_rows(isa, shape):
    assert row_statistics(np.empty((*shape, 5), np.float32)).argmax.shape == shape


@pytest.mark.parametrize(
    ("z", "text"),
    [
        ([[1.0]], "logits must be a NumPy array of float32, got list"),
        (np.zeros((2, 3)), "logits must have dtype float32, got float64"),
        (np.zeros((), np.float32), r"logits must have shape \(\.\.\., vocab\), got \(\)"),
        (np.zeros((3, 4), np.float32).T, "logits must be C-contiguous"),
        (np.zeros((3, 0), np.float32), "at least one column"),
    ],
)
def test_refuses(z, text):
    with pytest.raises(ArgumentError, match=text):
        row_statistics(z)


@given(data=st.data(), vocab=st.sampled_from([2, 17, 256, 257, 700]), size=st.sampled_from([3e38, 3.4e38, 1e30]))
def test_logits_as_far_apart_as_floats_are(isa, data, vocab, size):
    """z - max is -inf in float32; no NaN comes of it, in a chunk or between chunks."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    z = random.choice(np.array([-size, size, 0, 1, -np.inf]), (4, vocab)).astype(np.float32)
    z[:, random.integers(vocab)] = random.choice(np.array([-size, 0, size]))
    got, want = row_statistics(z), reference_row_statistics(z)
    np.testing.assert_array_equal(got.argmax, want[0])
    for field, meant in zip(got[1:], want[1:], strict=True):
        np.testing.assert_allclose(field, meant, rtol=1e-5, atol=1e-5)


def test_near_certainty_log_prob_keeps_its_digits(isa):
    """Beside 64 the others weigh from 3e-6 to 1e-38 of it: top - log_sum_exp is 0 for all."""
    gaps = np.array([12.6, 18, 30, 60, 86], np.float32)
    z = np.stack([np.full(5, 64, np.float32), 64 - gaps], axis=1)
    got = row_statistics(z)
    np.testing.assert_allclose(got.log_prob, -np.log1p(np.exp((z[:, 1] - z[:, 0]).astype(np.float64))), rtol=2.0**-20)
    many = np.full((1, 1000), 64 - 26, np.float32)
    many[0, 700] = 64
    np.testing.assert_allclose(row_statistics(many).log_prob, -np.log1p(999 * np.exp(-26.0)), rtol=2.0**-17)


@pytest.mark.skipif(np.intp(0).itemsize < 8, reason="no array of a 32-bit machine has as many")
def test_as_many_tokens_as_an_int32_cannot_count_are_refused(isa):
    with pytest.raises(ArgumentError, match=r"fewer than 2\^31, got shape \(0, 2147483648\)"):
        row_statistics(np.empty((0, 2**31), np.float32))
