"""The Sinkhorn divergence: nothing between equals, never negative, its gradient, its limits, Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.transport import pairwise_distance, sinkhorn, sinkhorn_divergence

METRICS = ["sqeuclidean", "euclidean", "l1", "cosine"]
EXACT = {"tolerance": 1e-13, "max_iterations": 20000}
TAUS = [None, (0.7, 0.7)]


def points(seed, n, m, d=2, dtype=np.float64):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, d)).astype(dtype), (random.standard_normal((m, d)) + 0.3).astype(dtype)


def masses(seed, *sizes):
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.ones(size)) for size in sizes]


@given(
    n=st.integers(1, 8), dtype=st.sampled_from([np.float32, np.float64]), metric=st.sampled_from(METRICS),
    tau=st.sampled_from(TAUS), epsilon=st.sampled_from([0.01, 1.0, 100.0]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_is_nothing_between_equals(n, dtype, metric, tau, epsilon, seed):
    """The three transports are then one, to the bit."""
    x, _ = points(seed, n, 1, dtype=dtype)
    a = masses(seed, n)[0].astype(dtype)
    found = sinkhorn_divergence(a, a, x, x, metric=metric, epsilon=epsilon, unbalanced=tau, max_iterations=20)
    assert found.value == 0


def test_what_rounding_takes_below_zero_is_zero():
    below = 0
    for seed in range(20):
        x, _ = points(seed, 10, 1)
        found = sinkhorn_divergence(None, None, x, x + 1e-9, epsilon=0.5)
        ab, aa, bb = (transport.value for transport in found.transports)
        below += ab - aa / 2 - bb / 2 < 0
        assert found.value >= 0
    assert below


@given(
    n=st.integers(1, 8), m=st.integers(1, 8), metric=st.sampled_from(METRICS), tau=st.sampled_from(TAUS),
    epsilon=st.sampled_from([0.05, 1.0, 100.0]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_what_it_means(n, m, metric, tau, epsilon, seed):
    """Its definition, from transports at given costs; never negative, also before rounding is taken off; and symmetric."""
    x, y = points(seed, n, m)
    a, b = masses(seed, n, m)
    if tau is not None:
        a, b = 2 * a, 0.5 * b
    settings = {"epsilon": epsilon, "unbalanced": tau, "tolerance": 1e-10, "max_iterations": 20000}
    found = sinkhorn_divergence(a, b, x, y, metric=metric, **settings)
    costs = [pairwise_distance(here, there, metric) for here, there in ((x, y), (x, x), (y, y))]
    ab, aa, bb = (
        sinkhorn(p, q, cost, **settings) for (p, q), cost in zip(((a, b), (a, a), (b, b)), costs, strict=True)
    )
    value = ab.value - aa.value / 2 - bb.value / 2
    if tau is not None:
        value += epsilon / 2 * (a.sum() - b.sum()) ** 2
    # The dual value is below the best by less than the marginal error times the range of potentials; rounding: of epsilon too.
    near = (2e-10 + 64 * (n + m) * 2.0**-53) * (max(cost.max() for cost in costs) + epsilon) * 8
    assert found.converged == all(transport.converged for transport in found.transports)
    if found.converged and ab.converged and aa.converged and bb.converged:
        assert value >= -near and found.value >= 0
        np.testing.assert_allclose(found.value, max(value, 0), rtol=0, atol=near)
        swapped = sinkhorn_divergence(b, a, y, x, metric=metric, **settings)
        np.testing.assert_allclose(swapped.value, found.value, rtol=0, atol=2 * near)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("metric", METRICS)
def test_gradient_is_the_slope(metric, tau):
    """Central differences along random directions: off by the third derivative, h^2 times that of cost and of plan."""
    x, y = points(5, 5, 4)
    a, b = masses(5, 5, 4)
    settings = {"metric": metric, "epsilon": 2.0, "unbalanced": tau, **EXACT}
    dx, dy = sinkhorn_divergence(a, b, x, y, **settings).gradient
    assert dx.shape == x.shape and dy.shape == y.shape
    random, h = np.random.default_rng(6), 1e-4
    for _ in range(4):
        u, v = random.standard_normal(x.shape), random.standard_normal(y.shape)
        ahead, behind = (sinkhorn_divergence(a, b, x + step * u, y + step * v, **settings).value for step in (h, -h))
        np.testing.assert_allclose((ahead - behind) / (2 * h), np.sum(u * dx) + np.sum(v * dy), rtol=1e-5, atol=1e-7)


def test_gradient_vanishes_between_equals():
    x, _ = points(1, 6, 1)
    a = masses(1, 6)[0]
    for part in sinkhorn_divergence(a, a, x, x, epsilon=4.0, **EXACT).gradient:
        np.testing.assert_allclose(part, 0, atol=1e-10)


def test_lies_between_transport_and_a_kernel_distance():
    """epsilon -> 0: the transport cost; epsilon -> inf: <cost, a b'> - <cost, a a'> / 2 - <cost, b b'> / 2."""
    x, y = np.array([[0.0], [1.0]]), np.array([[0.5], [2.5]])
    small = sinkhorn_divergence(None, None, x, y, metric="euclidean", epsilon=0.1, **EXACT)
    # The transport between has an entropy of at most log 2, and the halves of the two to themselves as much together.
    assert small.converged and abs(small.value - 1.0) <= 0.1 * np.log(2)
    large = sinkhorn_divergence(None, None, x, y, metric="euclidean", epsilon=1e4, **EXACT)
    want = np.mean([0.5, 2.5, 0.5, 1.5]) - np.mean([0, 1, 1, 0]) / 2 - np.mean([0, 2, 2, 0]) / 2
    assert abs(large.value - want) <= 2 * 2.5**2 / 1e4  # second order in cost / epsilon


def test_gaussians():
    """Two normal laws on a grid: means and deviations alone, in closed form."""
    line = np.linspace(-8, 9, 171)[:, None]
    epsilon, (mean, deviation), (other_mean, other) = 0.8, (0.0, 0.7), (1.0, 1.1)

    def law(mean, deviation):
        density = np.exp(-0.5 * ((line[:, 0] - mean) / deviation) ** 2)
        return density / density.sum()

    def transport(s, t):  # without the means: see test_oracles.py
        covariance = (np.sqrt(epsilon**2 / 4 + 4 * s**2 * t**2) - epsilon / 2) / 2
        return s**2 + t**2 - 2 * covariance - epsilon / 2 * np.log1p(-((covariance / (s * t)) ** 2))

    found = sinkhorn_divergence(
        law(mean, deviation), law(other_mean, other), line, line, epsilon=epsilon, tolerance=1e-11, max_iterations=5000
    )
    want = (
        (mean - other_mean) ** 2
        + transport(deviation, other)
        - transport(deviation, deviation) / 2
        - transport(other, other) / 2
    )
    # A sum over a grid of step 0.1 of a normal law is its integral up to e^(-2 pi^2 (0.7 / 0.1)^2): nothing; its tail beyond 7
    # deviations e^-25.
    np.testing.assert_allclose(found.value, want, rtol=1e-9)


def test_a_batch_is_its_items():
    """Points of the first side shared: their gradient is still one for each item."""
    x, _ = points(3, 4, 1)
    y = np.stack([points(seed, 1, 6)[1] for seed in range(3)])
    settings = {"epsilon": 2.0, "tolerance": 1e-9}
    found = sinkhorn_divergence(None, None, x, y, **settings)
    dx, dy = found.gradient
    assert found.value.shape == (3,) and found.converged.tolist() == [True] * 3
    assert dx.shape == (3, 4, 2) and dy.shape == y.shape
    for item in range(3):
        one = sinkhorn_divergence(None, None, x, y[item], **settings)
        assert found.value[item] == one.value
        np.testing.assert_array_equal(dx[item], one.gradient[0])
        np.testing.assert_array_equal(dy[item], one.gradient[1])


def test_says_when_it_did_not_converge():
    x, y = points(2, 6, 5)
    found = sinkhorn_divergence(None, None, x, y, epsilon=1e-3, max_iterations=2)
    assert not found.converged and "max_iterations" in [transport.status for transport in found.transports]


@pytest.mark.parametrize("name", ["a", "b", "x", "y"])
def test_names_what_is_not_finite(name):
    x, y = points(0, 3, 4)
    arrays = {"a": np.full(3, 1 / 3), "b": np.full(4, 1 / 4), "x": x, "y": y}
    arrays[name][1] = np.nan
    with pytest.raises(NotFiniteError, match=rf"^{name} holds"):
        sinkhorn_divergence(**arrays, epsilon=1.0)


def test_transport_to_itself_takes_few_steps():
    """Where turns take thousands."""
    x, y = points(1, 40, 30)
    x[0] += 5
    found = sinkhorn_divergence(None, None, x, y, epsilon=0.3, max_iterations=5000)
    assert found.converged and max(transport.iterations for transport in found.transports[1:]) < 40
    assert sinkhorn(None, None, x=x, y=x, epsilon=0.3, max_iterations=400).status == "max_iterations"
    for transport, here in zip(found.transports[1:], (x, y), strict=True):
        n = len(here)
        np.testing.assert_allclose(transport.plan.sum(axis=0), np.full(n, 1 / n), rtol=0, atol=1e-6)
        np.testing.assert_allclose(transport.plan, transport.plan.T, rtol=0, atol=1e-6)


def test_one_tau_for_both_sides():
    x, y = points(0, 3, 3)
    pair, number = (
        sinkhorn_divergence(None, None, x, y, epsilon=1.0, unbalanced=tau).value for tau in ((0.7, 0.7), 0.7)
    )
    assert pair == number
    with pytest.raises(ArgumentError, match="unbalanced must have one tau for both sides of a divergence"):
        sinkhorn_divergence(None, None, x, y, epsilon=1.0, unbalanced=(1.0, 2.0))
