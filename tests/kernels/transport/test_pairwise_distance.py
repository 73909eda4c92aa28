"""pairwise_distance against its reference, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import isa_levels, pairwise_distance, set_isa
from fastdistill.kernels.transport import points
from fastdistill.testing import strategies
from fastdistill.testing.cases.transport.pairwise_distance import METRICS, check


@given(case=strategies.pairwise_distance())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.pairwise_distance())
def test_same_bits_on_every_level_thread_count_and_cut(isa, case):
    *sets, metric = case.values()
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
    case=strategies.pairwise_distance(),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_names_what_is_not_finite(isa, case, bad, where):
    for name in "xy":
        points_of_it = case[name]
        kept = points_of_it.reshape(-1)[int(where * points_of_it.size)]
        points_of_it.reshape(-1)[int(where * points_of_it.size)] = bad
        with pytest.raises(NotFiniteError, match=f"^{name} holds"):
            pairwise_distance(**case)
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
