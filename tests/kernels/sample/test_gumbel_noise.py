"""gumbel_noise against its reference, on every level; its law; and that no two keys meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fastdistill.errors import ArgumentError
from fastdistill.kernels import gumbel_noise, set_isa
from fastdistill.testing import strategies
from fastdistill.testing.cases.sample.gumbel_noise import KEY, check


@given(case=strategies.gumbel_noise())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.gumbel_noise())
def test_same_bits_on_every_level(isa, case):
    case |= {"positions": np.arange(3, dtype=np.int32), "vocab": 333}
    got = gumbel_noise(**case)
    set_isa("scalar")
    want = gumbel_noise(**case)
    set_isa(isa)
    np.testing.assert_array_equal(got.view(np.int32), want.view(np.int32))


def test_a_token_keeps_its_noise_in_any_vocabulary_and_row(isa):
    many = gumbel_noise(np.arange(5, dtype=np.int32), 500, seed=3)
    np.testing.assert_array_equal(gumbel_noise(np.array([4], np.int32), 77, seed=3)[0], many[4, :77])


def test_every_part_of_the_key_matters(isa):
    position = np.array([5], np.int32)
    draws = [gumbel_noise(position, 64), gumbel_noise(position + 1, 64)]
    for name, most in KEY.items():
        draws += [gumbel_noise(position, 64, **{name: value}) for value in (1, (most + 1) // 2, most)]
    assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_law(isa):
    """e^-e^-g is uniform: 128 cells, chi-square within five standard deviations; neighbours are independent."""
    u = np.exp(-np.exp(-gumbel_noise(np.arange(300, dtype=np.int32), 1000, seed=1).astype(np.float64)))
    counts = np.histogram(u, 128, (0, 1))[0]
    expected = u.size / 128
    assert abs(((counts - expected) ** 2 / expected).sum() - 127) < 5 * (2 * 127) ** 0.5
    centred = u - 0.5
    for a, b in ((centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])):
        assert abs((a * b).mean()) < 5 / 12 / a.size**0.5


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"positions": np.zeros(2)}, "positions must have dtype int32, got float64"),
        ({"vocab": 0}, r"vocab must lie in 1\.\.2147483647, got 0"),
        *(({name: most + 1}, rf"{name} must lie in 0\.\.{most}, got {most + 1}") for name, most in KEY.items()),
        ({"seed": 1.0}, "seed must be an integer, got 1.0"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        gumbel_noise(**({"positions": np.zeros(2, np.int32), "vocab": 3} | change))
