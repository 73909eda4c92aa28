"""distance_gradient against its reference and against finite differences, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import distance_gradient, isa_levels, pairwise_distance, set_isa
from fastdistill.kernels.transport import points
from fastdistill.testing import strategies
from fastdistill.testing.cases.transport.distance_gradient import check
from fastdistill.testing.cases.transport.pairwise_distance import METRICS


@given(case=strategies.distance_gradient())
def test_matches_reference(isa, case):
    check(case)


@given(case=strategies.distance_gradient())
def test_same_bits_on_every_level_thread_count_and_cut(isa, case):
    weights, x, y, metric = case.values()
    want = distance_gradient(**case, threads=1)
    for level in isa_levels():
        set_isa(level)
        assert distance_gradient(**case, threads=3).tobytes() == want.tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "terms_of_a_call", lambda: 3 * y.shape[-2] * (x.shape[-1] + 16))
        assert distance_gradient(**case).tobytes() == want.tobytes()
    set_isa(isa)
    some = np.ascontiguousarray(weights[..., ::2, :]), np.ascontiguousarray(x[..., ::2, :]), y
    assert distance_gradient(*some, metric).tobytes() == want[..., ::2, :].tobytes()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [5, 70])
def test_is_the_derivative_of_the_weighted_distances(isa, metric, d):
    random = np.random.default_rng(d)
    weights, x, y, along = (random.standard_normal(shape) for shape in ((4, 6), (4, d), (6, d), (4, d)))
    step = 1e-6  # a central difference: 1e-12 of the third derivative, 1e-10 of rounding
    higher, lower = ((weights * pairwise_distance(x + sign * step * along, y, metric)).sum() for sign in (1, -1))
    got = (distance_gradient(weights, x, y, metric) * along).sum()
    np.testing.assert_allclose(got, (higher - lower) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("d", [3, 33, 600])
def test_kinks_count_as_flat(isa, d):
    """x on a point of y: nothing under l1 and euclidean; one equal coordinate: nothing there under l1."""
    x = np.random.default_rng(0).standard_normal((1, d)).astype(np.float32)
    y = np.concatenate([x, x + np.float32(1)])
    y[1, 0] = x[0, 0]
    weights = np.array([[5.0, 2.0]], np.float32)
    want = np.full(d, -2.0)
    want[0] = 0
    np.testing.assert_array_equal(distance_gradient(weights, x, y, "l1")[0], want)
    np.testing.assert_array_equal(distance_gradient(weights[:, :1], x, y[:1].copy(), "euclidean")[0], np.zeros(d))


@given(
    case=strategies.distance_gradient(),
    bad=st.sampled_from([np.nan, np.inf]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_names_what_is_not_finite(isa, case, bad, where):
    for name in ("weights", "x", "y"):
        array = case[name]
        kept = array.reshape(-1)[int(where * array.size)]
        array.reshape(-1)[int(where * array.size)] = bad
        with pytest.raises(NotFiniteError, match=f"^{name} holds"):
            distance_gradient(**case)
        array.reshape(-1)[int(where * array.size)] = kept


def test_no_problems_give_nothing(isa):
    assert distance_gradient(np.zeros((0, 2, 4)), np.zeros((0, 2, 3)), np.zeros((0, 4, 3))).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("weights", "x", "metric", "text"),
    [
        (np.zeros((2, 4)), np.zeros((2, 3), np.float32), "l1", "y must have dtype float32"),
        (np.zeros((2, 4), np.float32), np.zeros((2, 3)), "l1", "weights must have dtype float64"),
        (np.zeros((4, 2)), np.zeros((2, 3)), "l1", r"weights must have shape \(2, 4\)"),
        (np.zeros((2, 4)), np.zeros((2, 3)), "cosine", r"x\[0\] is zero"),
        (np.zeros((2, 4)), np.zeros((2, 3)), None, "metric must be one of"),
    ],
)
def test_refuses(weights, x, metric, text):
    with pytest.raises(ArgumentError, match=text):
        distance_gradient(weights, x, np.ones((4, 3)), metric)
