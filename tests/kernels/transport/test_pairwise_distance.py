"""pairwise_distance against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import isa_levels, pairwise_distance, set_isa
from fastdistill.kernels.transport import points
from fastdistill.reference.transport.pairwise_distance import pairwise_distance as reference_pairwise_distance

METRICS = list(points.METRICS)
COORDINATES = [1, 2, 3, 16, 63, 64, 65, 80, 512, 513, 1100]  # lanes, where the loops change, pieces of 512
COUNTS = [1, 2, 5, 15, 16, 17, 65, 257]  # tiles, lanes, blocks of 64 and of 256


@st.composite
def point_sets(draw):
    """Points of both dtypes in 0 to 2 dimensions of batches: spread out, on a grid so that some coincide, far from 0."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    d, dtype = draw(st.sampled_from(COORDINATES)), draw(st.sampled_from([np.float32, np.float64]))
    n, m = draw(st.sampled_from(COUNTS)), draw(st.sampled_from(COUNTS if d < 100 else COUNTS[:-1]))
    leading = draw(st.sampled_from([(), (), (3,), (2, 2)] if n * m * d < 20_000 else [()]))
    x, y = (random.standard_normal((*leading, count, d)) for count in (n, m))
    if draw(st.booleans()):
        x, y = np.round(x) + 0.5, np.round(y) + 0.5
    shift = draw(st.sampled_from([0.0, 3.0]))
    return (x + shift).astype(dtype), (y + shift).astype(dtype)


def bound(x, metric, want):
    """Roundings of a sum, relative, of what is at most 1 where it is a cosine.

    A lane adds 512 / 16 terms (few coordinates: d), each of up to 3 roundings, then 4 folds; the rest is in double.
    """
    unit = np.finfo(x.dtype).eps / 2
    d = x.shape[-1]
    roundings = (d if d < 64 else min(d, 512) / 16 + 5) + 4
    return {"rtol": 2 * roundings * unit, "atol": 2 * roundings * unit if metric == "cosine" else 0}


@given(sets=point_sets(), metric=st.sampled_from(METRICS))
def test_matches_reference(isa, sets, metric):
    got, want = pairwise_distance(*sets, metric), reference_pairwise_distance(*sets, metric)
    assert got.dtype == sets[0].dtype
    np.testing.assert_allclose(got, want, **bound(sets[0], metric, want))


@given(sets=point_sets(), metric=st.sampled_from(METRICS))
def test_same_bits_on_every_level_thread_count_and_cut(isa, sets, metric):
    want = pairwise_distance(*sets, metric, threads=1)
    for level in isa_levels():
        set_isa(level)
        assert pairwise_distance(*sets, metric, threads=3).tobytes() == want.tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "terms_of_a_call", lambda: 3 * sets[1].shape[-2] * (sets[0].shape[-1] + 16))
        assert pairwise_distance(*sets, metric).tobytes() == want.tobytes()
    set_isa(isa)
    rows = np.ascontiguousarray(sets[0][..., ::2, :]), np.ascontiguousarray(sets[1][..., ::-1, :])
    np.testing.assert_array_equal(pairwise_distance(*rows, metric), want[..., ::2, ::-1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [3, 700])
def test_known_distances(isa, metric, d):
    x, y = np.zeros((2, d)), np.zeros((1, d))
    x[0, 0], x[1, -1], y[0, 0] = 3, 4, 3
    want = {"sqeuclidean": [0, 25], "euclidean": [0, 5], "l1": [0, 7], "cosine": [0, 1]}[metric]
    np.testing.assert_array_equal(pairwise_distance(x, y, metric)[:, 0], want)


@given(
    sets=point_sets(),
    metric=st.sampled_from(METRICS),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_names_what_is_not_finite(isa, sets, metric, bad, where):
    for name, points_of_it in zip("xy", sets, strict=True):
        kept = points_of_it.reshape(-1)[int(where * points_of_it.size)]
        points_of_it.reshape(-1)[int(where * points_of_it.size)] = bad
        with pytest.raises(NotFiniteError, match=f"^{name} holds"):
            pairwise_distance(*sets, metric)
        points_of_it.reshape(-1)[int(where * points_of_it.size)] = kept


@pytest.mark.parametrize("d", [2, 64])
def test_what_overflows_is_infinite_and_the_cosine_does_not(isa, d):
    x = np.full((1, d), 1e30, np.float32)
    assert pairwise_distance(x, -x)[0, 0] == np.inf
    np.testing.assert_allclose(pairwise_distance(x, -x, "cosine"), 2, rtol=1e-6)
    denormal = np.full((1, d), 1e-40, np.float32)
    np.testing.assert_allclose(pairwise_distance(denormal, -x, "cosine"), 2, rtol=1e-6)


def test_no_problems_give_nothing(isa):
    assert pairwise_distance(np.zeros((0, 2, 3)), np.zeros((0, 4, 3))).shape == (0, 2, 4)


@pytest.mark.parametrize(
    ("x", "y", "metric", "text"),
    [
        (np.zeros((2, 3), np.int32), np.zeros((2, 3)), "l1", "x must have dtype float32"),
        (np.zeros((2, 3)), np.zeros((2, 3), np.float32), "l1", "y must have dtype float64 as x has, got float32"),
        (np.zeros((2, 3)), np.zeros((2, 4)), "l1", r"y must have shape \(m, 3\)"),
        (np.zeros((5, 2, 3)), np.zeros((4, 2, 3)), "l1", r"y must have shape \(5, m, 3\)"),
        (np.zeros(3), np.zeros((2, 3)), "l1", "x must have shape"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "l1", "must have points and coordinates"),
        (np.zeros((0, 2)), np.zeros((2, 2)), "l1", "must have points and coordinates"),
        (np.zeros((2, 3)), np.zeros((2, 3)), "l2", "metric must be one of sqeuclidean, euclidean, l1, cosine"),
        (np.zeros((3, 2)).T, np.zeros((2, 3)), "l1", "C-contiguous"),
        (np.array([[1.0], [0.0]]), np.ones((1, 1)), "cosine", r"x\[1\] is zero"),
        (np.ones((1, 1, 1)), np.zeros((1, 1, 1)), "cosine", r"y\[0, 0\] is zero"),
    ],
)
def test_refuses(x, y, metric, text):
    with pytest.raises(ArgumentError, match=text):
        pairwise_distance(x, y, metric)
