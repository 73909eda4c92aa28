"""The accountant: its closed form, the integral that it stands for, published tables, and another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import rdp_epsilon, renyi_divergences
from fastdistill.errors import ArgumentError

MNIST = 256 / 60000  # a batch of 256 of so many images; an epoch is 60000 / 256 steps


def epoch_steps(epochs):
    return round(epochs * 60000 / 256)


def test_all_records_in_every_batch_is_the_gaussian_mechanism():
    orders = np.arange(2, 65)
    np.testing.assert_allclose(renyi_divergences(1.0, 1.7, orders), orders / 1.7**2 / 2, rtol=1e-15)
    near = renyi_divergences(1 - 1e-15, 1.7, orders)
    np.testing.assert_allclose(near, orders / 1.7**2 / 2, rtol=1e-12)


def divergence_by_integral(rate, sigma, order):
    """log E (mixture / noise)^a / (a - 1) over the noise alone, where the ratio is 1 - q + q exp((2 x - 1) / 2 sigma^2), by a fine sum."""
    begin, end, count = -15 * sigma, 15 * sigma + 12, 400_000
    x = np.linspace(begin, end, count + 1)
    density = np.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    ratio = 1 - rate + rate * np.exp((2 * x - 1) / (2 * sigma**2))
    return math.log((density * ratio**order).sum() * ((end - begin) / count)) / (order - 1)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_the_sum_is_the_integral_of_the_definition(rate, sigma):
    for order in (2, 3, 8):
        want = divergence_by_integral(rate, sigma, order)
        np.testing.assert_allclose(renyi_divergences(rate, sigma, [order])[0], want, rtol=1e-9, atol=1e-13)


def test_order_two_by_hand():
    """log(1 + q^2 (exp(1 / sigma^2) - 1))."""
    for rate, sigma in ((0.01, 1.0), (0.5, 3.0), (1e-6, 0.7)):
        want = math.log1p(rate**2 * math.expm1(1 / sigma**2))
        np.testing.assert_allclose(renyi_divergences(rate, sigma, [2])[0], want, rtol=1e-9, atol=4e-15)


def test_values_that_stay():
    assert rdp_epsilon(0.01, 1.0, 1000, 1e-5).epsilon == pytest.approx(2.1077530754515, rel=1e-12)
    assert rdp_epsilon(0.01, 1.0, 1000, 1e-5).order == 8
    assert rdp_epsilon(MNIST, 1.1, 14040, 1e-5).epsilon == pytest.approx(2.5948176752357, rel=1e-12)


@pytest.mark.parametrize(("sigma", "epochs", "published"), [(1.3, 15, 1.19), (1.1, 60, 3.01)])
def test_published_epsilons_of_the_older_conversion(sigma, epochs, published):
    """Of TensorFlow Privacy's tutorials, by eps = divergence - log(delta) / (a - 1), Mironov 2017: a larger epsilon than ours."""
    orders = np.arange(2, 257)
    divergences = epoch_steps(epochs) * renyi_divergences(MNIST, sigma, orders)
    older = (divergences + math.log(1e5) / (orders - 1)).min()
    assert round(older, 2) == published
    assert rdp_epsilon(MNIST, sigma, epoch_steps(epochs), 1e-5).epsilon < older


def test_a_published_epsilon_of_a_fractional_order_is_a_little_less():
    """7.10, of the same tutorials at sigma 0.7, is that of order 3.8; whole orders give 7.12."""
    orders = np.arange(2, 257)
    steps = epoch_steps(45)
    older = (steps * renyi_divergences(MNIST, 0.7, orders) + math.log(1e5) / (orders - 1)).min()
    tenths = np.arange(30, 46) / 10
    finer = min(steps * divergence_by_integral(MNIST, 0.7, order) + math.log(1e5) / (order - 1) for order in tenths)
    assert round(finer, 2) == 7.10 < round(older, 2) == 7.12


@given(
    rate=st.sampled_from([1e-3, 0.05, 0.5]),
    sigma=st.sampled_from([0.6, 1.0, 4.0]),
    steps=st.sampled_from([1, 50, 2000]),
)
def test_more_steps_more_records_and_less_noise_give_more_away(rate, sigma, steps):
    found = rdp_epsilon(rate, sigma, steps, 1e-5).epsilon
    assert found <= rdp_epsilon(rate, sigma, 2 * steps, 1e-5).epsilon
    assert found <= rdp_epsilon(1.5 * rate, sigma, steps, 1e-5).epsilon
    assert found >= rdp_epsilon(rate, 1.2 * sigma, steps, 1e-5).epsilon
    assert found >= rdp_epsilon(rate, sigma, steps, 1e-4).epsilon
    divergences = renyi_divergences(rate, sigma)
    assert (divergences >= 0).all() and (np.diff(divergences) >= -1e-12).all()


def test_ends():
    assert rdp_epsilon(0.01, 1.0, 0, 1e-5) == (0.0, 0)
    assert rdp_epsilon(0.0, 1.0, 10, 1e-5) == (0.0, 0)
    assert rdp_epsilon(0.0, 0.0, 10, 1e-5) == (0.0, 0)
    assert rdp_epsilon(0.01, 0.0, 10, 1e-5).epsilon == math.inf
    assert rdp_epsilon(0.01, 1e-200, 10, 1e-5).epsilon == math.inf
    assert rdp_epsilon(0.01, 1e100, 10, 0.9).epsilon == 0
    assert rdp_epsilon(0.01, 1.0, 1000, 1e-5, orders=[8]).epsilon == rdp_epsilon(0.01, 1.0, 1000, 1e-5).epsilon
    assert np.isfinite(renyi_divergences(0.3, 0.05, [65536]))


@pytest.mark.peers
@pytest.mark.parametrize(
    ("rate", "sigma", "steps"), [(0.01, 1.0, 1000), (MNIST, 1.1, 14040), (0.2, 3.0, 77), (1.0, 9.0, 5)]
)
def test_agrees_with_googles_accountant(rate, sigma, steps):
    dp_accounting = pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install dp-accounting")
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders=list(range(2, 257)))
    noise = dp_accounting.GaussianDpEvent(sigma)
    accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(rate, noise), steps))
    for delta in (1e-3, 1e-5, 1e-9):
        assert rdp_epsilon(rate, sigma, steps, delta).epsilon == pytest.approx(accountant.get_epsilon(delta), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sampling_rate": 1.5}, "sampling_rate must lie in 0..1"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must lie in"),
        ({"steps": -1}, "steps must lie in"),
        ({"steps": 1.0}, "steps must be an integer"),
        ({"delta": 0.0}, "delta must be above 0 and below 1, got 0"),
        ({"delta": 1.0}, "delta must be above 0 and below 1, got 1"),
        ({"orders": [1]}, r"orders\[0\] must lie in 2.."),
        ({"orders": []}, "orders must be a non-empty sequence of integers"),
        ({"orders": [2.5]}, "orders must be a non-empty sequence of integers"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        rdp_epsilon(**({"sampling_rate": 0.01, "noise_multiplier": 1.0, "steps": 10, "delta": 1e-5} | change))
