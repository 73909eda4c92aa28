"""row_statistics against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import row_statistics
from fastdistill.reference.row_statistics import row_statistics as reference_row_statistics

WIDTHS = [1, 2, 15, 16, 17, 255, 256, 257, 511, 513, 4099]  # lane and chunk edges, and one long row


@st.composite
def logits(draw):
    """Rows of every width that matters, in 0 to 3 dimensions: spread out, all alike, with ties, with bans."""
    leading, vocab = draw(st.lists(st.integers(1, 3), max_size=3)), draw(st.sampled_from(WIDTHS))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    z = (random.standard_normal((*leading, vocab)) * draw(st.sampled_from([0.0, 0.1, 3.0, 60.0]))).astype(np.float32)
    if draw(st.booleans()):
        z = np.round(z)
    if draw(st.booleans()):
        z[random.random(z.shape) < 0.7] = -np.inf
        z[..., random.integers(vocab)] = 1.5
    return z + np.float32(draw(st.sampled_from([0.0, -200.0, 1e4])))


@given(z=logits())
def test_matches_reference(isa, z):
    got, want = row_statistics(z), reference_row_statistics(z)
    assert all(field.shape == z.shape[:-1] for field in got)
    np.testing.assert_array_equal(got.argmax, want[0])
    np.testing.assert_array_equal(got.top, want[1].astype(np.float32))
    np.testing.assert_array_equal(got.second, want[2].astype(np.float32))
    # exp within 2 ulp, each term of the sums too, and 16-lane sums of V/16 terms: V/16 + 12 roundings at most.
    roundings = (z.shape[-1] / 16 + 12) * 2.0**-24
    np.testing.assert_allclose(
        got.log_sum_exp - got.top, want[3] - want[1], rtol=0, atol=roundings + 2.0**-23 * np.abs(want[3]).max()
    )
    np.testing.assert_allclose(got.entropy, want[4], rtol=0, atol=roundings * (4 + 2 * np.log(z.shape[-1]) + 1))


@given(z=logits())
def test_same_bits_on_every_level_and_thread_count(isa, z):
    from fastdistill.kernels import set_isa

    got = row_statistics(z, threads=3)
    set_isa("scalar")
    want = row_statistics(z)
    set_isa(isa)
    for field, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(field.view(np.int32), expected.view(np.int32))


@given(z=logits(), bad=st.sampled_from([np.nan, np.inf, -np.nan]), where=st.floats(0, 1, exclude_max=True))
def test_reports_what_is_not_finite(isa, z, bad, where):
    z.reshape(-1)[int(where * z.size)] = bad
    with pytest.raises(NotFiniteError, match="row_statistics"):
        row_statistics(z)


def test_a_row_of_bans_is_not_finite(isa):
    with pytest.raises(NotFiniteError):
        row_statistics(np.full((1, 40), -np.inf, np.float32))


@given(z=logits())
def test_a_row_is_treated_alike_in_any_dimensions(isa, z):
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
