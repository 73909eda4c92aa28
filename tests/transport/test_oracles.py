"""Transports known otherwise: assignments as epsilon falls, the line, normal laws, and what POT asks of its own."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.transport import pairwise_distance, sinkhorn, wasserstein_1d


def bounds(value, exact, epsilon, tolerance, points, largest):
    """The best plan has an entropy of at most log(points); a plan with marginals off by the tolerance is that near to one without."""
    assert exact - tolerance * largest <= value <= exact + epsilon * np.log(points) + tolerance * largest


@settings(max_examples=40)
@given(n=st.integers(1, 6), exponent=st.sampled_from([0, -1, -2, -3]), seed=st.integers(0, 2**32))
def test_tends_to_the_best_assignment(n, exponent, seed):
    cost = np.random.default_rng(seed).random((n, n))
    exact = min(cost[range(n), chosen].mean() for chosen in permutations(range(n)))
    epsilon = 10.0**exponent
    found = sinkhorn(None, None, cost, epsilon=epsilon, epsilon_scaling=0.5, tolerance=1e-4, max_iterations=100_000)
    assert found.converged
    bounds(found.value_linear, exact, epsilon, 1e-4, n, 1.0)


@given(
    n=st.integers(1, 30), m=st.integers(1, 30), metric=st.sampled_from(["sqeuclidean", "euclidean", "l1"]),
    epsilon=st.sampled_from([0.3, 0.03]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_tends_to_transport_on_a_line(n, m, metric, epsilon, seed):
    random = np.random.default_rng(seed)
    x, y = random.random((n, 1)), random.random((m, 1))
    a, b = random.dirichlet(np.ones(n)), random.dirichlet(np.ones(m))
    exact = wasserstein_1d(x[:, 0].copy(), y[:, 0].copy(), a, b, p=2 if metric == "sqeuclidean" else 1)
    found = sinkhorn(
        a, b, x=x, y=y, metric=metric, epsilon=epsilon, epsilon_scaling=0.5, tolerance=1e-4, max_iterations=100_000
    )
    assert found.converged
    bounds(found.value_linear, exact, epsilon, 1e-4, min(n, m), 1.0)


@pytest.mark.parametrize("epsilon", [0.05, 0.8, 20.0])
@pytest.mark.parametrize("deviations", [(0.5, 0.5), (0.4, 1.2)])
def test_normal_laws(epsilon, deviations):
    """The plan is normal too, its covariance c with c^2 + c epsilon / 2 = s^2 t^2: there the slope of s^2 + t^2 - 2 c -
    epsilon log(1 - c^2 / s^2 t^2) / 2 is 0, of the cost and the mutual information (Janati et al. 2020)."""
    s, t = deviations
    line = np.linspace(-9, 9, 361)
    a, b = (np.exp(-0.5 * ((line - mean) / deviation) ** 2) for mean, deviation in ((-0.3, s), (0.9, t)))
    a, b = a / a.sum(), b / b.sum()
    found = sinkhorn(a, b, x=line[:, None], y=line[:, None], epsilon=epsilon, tolerance=1e-11, max_iterations=100_000)
    assert found.converged
    c = (np.sqrt(epsilon**2 / 4 + 4 * s**2 * t**2) - epsilon / 2) / 2
    cost = 1.2**2 + s**2 + t**2 - 2 * c
    # A step of 0.05 is an eighth of the least deviation: a sum over the grid is its integral up to e^(-2 pi^2 64).  What lies beyond
    # 9 is 6.7 deviations away: e^-22 of the mass, where costs are some hundred.
    near = {"rtol": 0, "atol": 1e-7}
    np.testing.assert_allclose(found.value_linear, cost, **near)
    np.testing.assert_allclose(found.value, cost - epsilon / 2 * np.log1p(-((c / (s * t)) ** 2)), **near)
    np.testing.assert_allclose(line @ found.plan @ line, c + -0.3 * 0.9, **near)


@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_unbalanced_potentials_solve_their_equation(tau):
    """Fixed points: log of a marginal over what it should be is -f / tau; and looser marginals move less."""
    random = np.random.default_rng(42)
    x = random.standard_normal((50, 2))
    a, b = random.dirichlet(np.ones(50)), 1.5 * random.dirichlet(np.ones(50))
    found = sinkhorn(a, b, x=x, y=x, epsilon=1.0, unbalanced=(tau, tau), tolerance=1e-12)
    assert found.converged
    for marginal, masses, potentials in zip(
        (found.plan.sum(axis=1), found.plan.sum(axis=0)), (a, b), found.potentials, strict=True
    ):
        np.testing.assert_allclose(np.log(marginal / masses), -potentials / tau, rtol=0, atol=1e-9)
    # Where nothing costs, the plan is s a b', and the slope by s is 0: (epsilon + 2 tau) log s + tau log(total of a, of b) = 0.
    free = sinkhorn(a, b, np.zeros((50, 50)), epsilon=1.0, unbalanced=(tau, tau), tolerance=1e-12)
    s = (a.sum() * b.sum()) ** (-tau / (1.0 + 2 * tau))
    np.testing.assert_allclose(free.plan, s * np.outer(a, b), rtol=1e-9)


def test_a_held_side_is_met_and_a_hard_price_is_balanced():
    random = np.random.default_rng(1)
    a, b, cost = random.dirichlet(np.ones(20)), random.dirichlet(np.ones(15)), random.random((20, 15))
    half = sinkhorn(a, b, cost, epsilon=0.2, unbalanced=(np.inf, 0.5), tolerance=1e-12)
    np.testing.assert_allclose(half.plan.sum(axis=1), a, atol=2e-12)
    assert np.abs(half.plan.sum(axis=0) - b).sum() > 1e-3
    balanced = sinkhorn(a, b, cost, epsilon=0.2, tolerance=1e-12)
    hard = sinkhorn(a, b, cost, epsilon=0.2, unbalanced=(np.inf, 1e6), tolerance=1e-12)
    # Marginals off by b (1 - e^(-g / tau)): of potentials below 1, 1e-6 of the mass.
    np.testing.assert_allclose(hard.plan, balanced.plan, rtol=1e-4)
    limit = sinkhorn(a, b, cost, epsilon=0.2, unbalanced=(np.inf, np.inf), tolerance=1e-12)
    np.testing.assert_array_equal(limit.plan, balanced.plan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_empirical_and_given_costs_are_one(dtype):
    """From points, from their distances, with uniform masses given or not."""
    random = np.random.default_rng(42)
    x, y = random.standard_normal((100, 2)).astype(dtype), random.standard_normal((80, 2)).astype(dtype)
    a, b = np.full(100, 1 / 100, dtype), np.full(80, 1 / 80, dtype)
    settings = {"epsilon": 1.0, "max_iterations": 50, "tolerance": 0.0}
    found = [
        sinkhorn(None, None, x=x, y=y, **settings),
        sinkhorn(a, b, x=x, y=y, **settings),
        sinkhorn(None, None, pairwise_distance(x, y), **settings),
        sinkhorn(a, None, pairwise_distance(x, y), **settings),
    ]
    # 50 iterations, each with roundings of costs up to 100 over epsilon.
    near = np.expm1(2 * 50 * 2 * 8 * 100 * np.finfo(dtype).eps / 2)
    for other in found[1:]:
        np.testing.assert_allclose(other.plan, found[0].plan, rtol=near, atol=1e-37)
        np.testing.assert_allclose(other.value_linear, found[0].value_linear, rtol=near)


def test_several_targets_of_one_source():
    """POT's b of several columns: a batch, and with equal ones one plan each."""
    random = np.random.default_rng(42)
    x = random.standard_normal((30, 2))
    cost = pairwise_distance(x, x)
    several = np.stack([np.full(30, 1 / 30), random.dirichlet(np.ones(30)), np.full(30, 1 / 30)])
    found = sinkhorn(None, several, cost, epsilon=2.0, tolerance=1e-10, max_iterations=10_000)
    assert found.converged.all() and found.value_linear[0] == found.value_linear[2] != found.value_linear[1]
    np.testing.assert_allclose(found.plan.sum(axis=1), several, atol=1e-10)
    np.testing.assert_allclose(found.plan.sum(axis=2), np.full((3, 30), 1 / 30), atol=1e-10)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_epsilons_stay_finite(epsilon, dtype):
    """Where the plain iteration divides by 0: e^(-cost / epsilon) is nothing for every pair."""
    random = np.random.default_rng(42)
    x = random.standard_normal((60, 2)).astype(dtype)
    y = (random.standard_normal((50, 2)) + 20).astype(dtype)
    found = sinkhorn(None, None, x=x, y=y, epsilon=epsilon, max_iterations=200)
    for array in (found.value_linear, found.value, found.marginal_error, found.plan, *found.potentials):
        assert np.isfinite(array).all()
    # Rows are met after every iteration, as far as the dtype tells exponents of cost / epsilon apart.
    digits = 8 * np.finfo(dtype).eps * 1000 / epsilon
    if digits < 0.1:
        np.testing.assert_allclose(found.plan.sum(axis=1), np.full(60, 1 / 60), rtol=digits)
