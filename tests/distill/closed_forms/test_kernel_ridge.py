"""Self-distillation of kernel ridge regression: iterated, unrolled, spectral and at its limit it is one thing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import KernelRidge, best_alpha
from fastdistill.errors import ArgumentError, NotFiniteError

alphas, ridges = st.sampled_from([0.0, 0.25, 0.6, 1.0]), st.sampled_from([0.05, 0.2, 3.0])


def rbf(x, y, gamma=80.0):
    return np.exp(-gamma * (x[:, None] - y) ** 2)


@st.composite
def problems(draw):
    """A kernel of points on a line, or of few features and so of low rank; targets of one output or several."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(1, 11))
    features = random.standard_normal((size, 3))
    x = np.linspace(0, 1, size)
    kernel = rbf(x, x, draw(st.sampled_from([5, 80]))) if draw(st.booleans()) else features @ features.T
    return (kernel + kernel.T) / 2, random.standard_normal((size,) if draw(st.booleans()) else (size, 2))


def iterated(kernel, targets, ridge, steps, alpha):
    smoother = kernel @ np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    found = smoother @ targets
    for _ in range(steps):
        found = smoother @ (alpha * targets + (1 - alpha) * found)
    return found


@given(problem=problems(), ridge=ridges, alpha=alphas, steps=st.integers(0, 12))
def test_steps_are_the_iteration(problem, ridge, alpha, steps):
    kernel, targets = problem
    found = KernelRidge(kernel, targets, ridge).self_distill(steps, alpha)
    np.testing.assert_allclose(found, iterated(kernel, targets, ridge, steps, alpha), rtol=0, atol=1e-11)


@given(problem=problems(), ridge=ridges, alpha=alphas, steps=st.integers(0, 6))
def test_steps_are_the_unrolled_sum(problem, ridge, alpha, steps):
    kernel, targets = problem
    smoother = kernel @ np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    powers = [np.linalg.matrix_power(smoother, i) for i in range(steps + 2)]
    matrix = alpha * sum(((1 - alpha) ** i * powers[i + 1] for i in range(steps)), np.zeros_like(kernel))
    matrix = matrix + (1 - alpha) ** steps * powers[steps + 1]
    found = KernelRidge(kernel, targets, ridge).self_distill(steps, alpha)
    np.testing.assert_allclose(found, matrix @ targets, rtol=0, atol=1e-11)


@given(problem=problems(), ridge=ridges, alpha=alphas)
def test_the_limit_is_ridge_regression_with_a_larger_ridge(problem, ridge, alpha):
    kernel, targets = problem
    chain = KernelRidge(kernel, targets, ridge)
    limit = chain.limit(alpha)
    if alpha == 0:
        np.testing.assert_array_equal(limit, np.zeros_like(targets))
    else:
        np.testing.assert_allclose(limit, iterated(kernel, targets, ridge / alpha, 0, 1.0), rtol=0, atol=1e-11)
    largest = np.linalg.eigvalsh(kernel)[-1]
    rate = (1 - alpha) * largest / (largest + ridge)
    steps = 5000
    np.testing.assert_allclose(
        chain.self_distill(steps, alpha), limit, rtol=0, atol=1e-11 + 10 * np.abs(targets).sum() * rate**steps
    )
    np.testing.assert_allclose(chain.self_distill(2**62, alpha), limit, rtol=0, atol=1e-13)


@given(problem=problems(), ridge=ridges, alpha=alphas, steps=st.integers(0, 5))
def test_predictions_at_the_points_themselves_are_the_fit(problem, ridge, alpha, steps):
    kernel, targets = problem
    chain = KernelRidge(kernel, targets, ridge)
    np.testing.assert_allclose(
        chain.predict(np.ascontiguousarray(kernel), steps, alpha), chain.self_distill(steps, alpha), rtol=0, atol=1e-11
    )


def test_predictions_elsewhere_are_by_the_inverse():
    random = np.random.default_rng(0)
    x, there = np.linspace(0, 1, 9), random.random(4)
    y, kernel, cross = random.standard_normal((9, 2)), rbf(x, x), rbf(there, x)
    chain, ridge, alpha = KernelRidge(kernel, y, 0.2), 0.2, 0.3
    inverse = np.linalg.inv(kernel + ridge * np.eye(9))
    np.testing.assert_allclose(chain.predict(cross), cross @ inverse @ y, rtol=0, atol=1e-12)
    mixture = alpha * y + (1 - alpha) * chain.self_distill(2, alpha)
    np.testing.assert_allclose(chain.predict(cross, 3, alpha), cross @ inverse @ mixture, rtol=0, atol=1e-12)
    np.testing.assert_allclose(chain.refit(mixture).predict(cross), chain.predict(cross, 3, alpha), rtol=0, atol=1e-12)


def test_students_of_students_lose_small_directions_first_and_then_all():
    x = np.linspace(0, 1, 11)
    kernel = rbf(x, x)
    _, vectors = np.linalg.eigh(kernel)
    chain = KernelRidge(kernel, vectors.sum(axis=1), 0.2)
    shares = np.array([vectors.T @ chain.self_distill(steps) for steps in range(40)])
    assert (np.diff(shares, axis=0) < 0).all()
    ratio = shares[:, 0] / shares[:, -1]
    assert (np.diff(ratio) < 0).all()
    assert shares[-1, 0] < 1e-11 and shares[-1, -1] > 1e-2
    np.testing.assert_allclose(chain.self_distill(10**6), 0, rtol=0, atol=1e-300)


def test_the_readmes_shape_of_the_loss_over_steps():
    """A noisy sinusoid at 11 points: without targets a valley, then collapse; with a quarter of them a plateau at its limit."""
    x = np.linspace(0, 1, 11)
    true = np.sin(2 * np.pi * x)
    better = 0
    for seed in range(20):
        y = true + 0.5 * np.random.default_rng(seed).standard_normal(11)
        chain = KernelRidge(rbf(x, x), y, 0.2)
        alone = [((chain.self_distill(steps) - true) ** 2).mean() for steps in range(60)]
        lowest = int(np.argmin(alone))
        assert (np.diff(alone[lowest:]) > 0).all()
        assert alone[-1] > 0.9 * (true**2).mean() > alone[lowest]
        better += lowest > 0
        mixed = [((chain.self_distill(steps, 0.25) - true) ** 2).mean() for steps in range(200)]
        np.testing.assert_allclose(mixed[-1], ((chain.limit(0.25) - true) ** 2).mean(), rtol=1e-12)
    assert better >= 10  # some students are better than their first teacher


@given(problem=problems(), ridge=ridges, steps=st.integers(0, 5))
def test_with_the_targets_alone_no_student_differs_from_the_first(problem, ridge, steps):
    chain = KernelRidge(*problem, ridge)
    np.testing.assert_array_equal(chain.self_distill(steps, 1.0), chain.self_distill(0))
    np.testing.assert_allclose(chain.limit(1.0), chain.self_distill(0), rtol=0, atol=1e-13)


def test_without_ridge_the_targets_are_met_where_the_kernel_reaches():
    features = np.random.default_rng(0).standard_normal((6, 2))
    kernel, targets = features @ features.T, np.random.default_rng(1).standard_normal(6)
    reached = features @ np.linalg.lstsq(features, targets, rcond=None)[0]
    chain = KernelRidge((kernel + kernel.T) / 2, targets, 0.0)
    for found in (
        chain.self_distill(0),
        chain.self_distill(7, 0.3),
        chain.self_distill(9),
        chain.limit(0.3),
        chain.limit(0.0),
    ):
        np.testing.assert_allclose(found, reached, rtol=0, atol=1e-12)
    nothing = KernelRidge(np.zeros((3, 3)), np.ones(3), 0.0)
    np.testing.assert_array_equal(nothing.self_distill(2, 0.5), 0)


def test_rounding_below_zero_is_zero():
    """The kernel of points that are one another's is of rank one; some of its eigenvalues come out negative."""
    kernel = np.full((40, 40), 1 / 3)
    chain = KernelRidge(kernel, np.arange(40.0), 1e-3)
    np.testing.assert_allclose(chain.self_distill(3, 0.5), iterated(kernel, np.arange(40.0), 1e-3, 3, 0.5), rtol=1e-9)


@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(5,), (4, 2)]))
def test_the_best_mixture_has_the_least_error(seed, shape):
    targets, first, second = np.random.default_rng(seed).standard_normal((3, *shape))
    best = best_alpha(targets, first, second)

    def error(alpha):
        return ((targets - alpha * first - (1 - alpha) * second) ** 2).sum()

    assert error(best) <= min(error(best + step) for step in (-1, -0.1, -1e-4, 1e-4, 0.1, 1)) + 1e-12
    assert best_alpha(first, first, second) == pytest.approx(1, abs=1e-12)
    assert best_alpha(second, first, second) == pytest.approx(0, abs=1e-12)
    assert best_alpha(targets, first, first) == 1
    assert best_alpha(3 * first - 2 * second, first, second) == pytest.approx(3, abs=1e-12)  # beyond both


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: KernelRidge([[1.0]], [1.0], 0.1), "kernel must be a NumPy array"),
        (lambda: KernelRidge(np.zeros((2, 3)), [1.0, 2.0], 0.1), "kernel must be square"),
        (lambda: KernelRidge(np.zeros((0, 0)), [], 0.1), "kernel must be square and not empty"),
        (lambda: KernelRidge(np.array([[1.0, 0.5], [0.4, 1.0]]), [1.0, 2.0], 0.1), "kernel must be symmetric"),
        (lambda: KernelRidge(np.array([[0.0, 1.0], [1.0, 0.0]]), [1.0, 2.0], 0.1), "kernel must be positive semi-definite"),
        (lambda: KernelRidge(np.eye(2), [1.0], 0.1), r"targets must have shape \(2,\) or \(2, outputs\), got \(1,\)"),
        (lambda: KernelRidge(np.eye(2), [1.0, 2.0], -0.1), "ridge must lie in"),
        (lambda: KernelRidge(np.eye(2), [1.0, 2.0], 0.1).self_distill(-1), "steps must lie in"),
        (lambda: KernelRidge(np.eye(2), [1.0, 2.0], 0.1).self_distill(1, 1.5), "alpha must lie in 0..1"),
        (lambda: KernelRidge(np.eye(2), [1.0, 2.0], 0.1).limit(-1), "alpha must lie in 0..1"),
        (lambda: KernelRidge(np.eye(2), [1.0, 2.0], 0.1).predict(np.zeros((3, 3))), r"cross_kernel must have shape \(m, 2\)"),
        (lambda: KernelRidge(np.eye(2), [1.0, 2.0], 0.1).refit([1.0]), "targets must have shape"),
        (lambda: best_alpha([1.0], [1.0, 2.0], [1.0]), r"first must have shape \(1,\)"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


def test_names_what_is_not_finite():
    kernel = np.eye(2)
    kernel[1, 1] = np.nan
    with pytest.raises(NotFiniteError, match=r"kernel holds .*: kernel\[1, 1\]"):
        KernelRidge(kernel, [1.0, 2.0], 0.1)
    with pytest.raises(NotFiniteError, match=r"targets holds .*: targets\[1\]"):
        KernelRidge(np.eye(2), [1.0, np.inf], 0.1)
    with pytest.raises(NotFiniteError, match="cross_kernel holds"):
        KernelRidge(np.eye(2), [1.0, 2.0], 0.1).predict(np.full((1, 2), np.nan))
    with pytest.raises(NotFiniteError, match="second holds"):
        best_alpha([1.0], [1.0], [np.nan])
