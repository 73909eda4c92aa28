"""MI-alpha: its formula, its ends, its gradients by differences, and what it says of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import cosine_similarity, cosine_similarity_gradient, mi_alpha
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


def bound(s, b, alpha, leave_one_out=False):
    """I_alpha by the formula."""
    size = len(s)
    exponentials = np.exp(s)
    if leave_one_out:
        exponentials = exponentials * (1 - np.eye(size))
    m = exponentials.sum(axis=0) / (size - leave_one_out)
    u = alpha * m + (1 - alpha) * np.exp(b)
    return 1 + np.mean(np.diag(s) - np.log(u)) - np.mean(m / u)


@given(
    seed=st.integers(0, 2**32), size=st.integers(2, 6), alpha=st.sampled_from([0.0, 0.1, 0.5, 1.0]), loo=st.booleans()
)
def test_is_the_formula(seed, size, alpha, loo):
    random = np.random.default_rng(seed)
    s, b = random.standard_normal((size, size)) * 2, random.standard_normal(size)
    found = mi_alpha(s, b, alpha=alpha, leave_one_out=loo)
    np.testing.assert_allclose(found.value, -bound(s, b, alpha, loo), rtol=1e-11, atol=1e-12)
    if alpha == 1:
        assert not found.gradient.baseline.any()
        shifted = mi_alpha(s + random.standard_normal(size), leave_one_out=loo)
        np.testing.assert_allclose(shifted.value, found.value, atol=1e-12)
        if not loo:
            assert found.value >= -np.log(size) - 1e-12


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("loo", [False, True])
def test_gradients_are_the_derivatives(alpha, loo):
    s, b = np.random.default_rng(0).standard_normal((4, 4)), np.random.default_rng(1).standard_normal(4)
    settings = {"alpha": alpha, "leave_one_out": loo, "weights": [1.0, 0.0, 2.0, 0.5]}
    found = mi_alpha(s, b, **settings).gradient
    np.testing.assert_allclose(found.scores, slopes(lambda at: mi_alpha(at, b, **settings).value, s), atol=1e-8)
    np.testing.assert_allclose(found.baseline, slopes(lambda at: mi_alpha(s, at, **settings).value, b), atol=1e-8)


def test_ends():
    s = np.random.default_rng(2).standard_normal((5, 5))
    m = np.exp(s).mean(axis=0)
    np.testing.assert_allclose(mi_alpha(s).value, -np.mean(np.log(np.exp(np.diag(s)) / m)), rtol=1e-13)
    nwj = mi_alpha(s, np.ones(5), alpha=0.0)
    np.testing.assert_allclose(nwj.value, -(np.diag(s).mean() - np.exp(-1) * np.exp(s).mean()), rtol=1e-13)


def test_pairs_of_weight_zero_are_no_negatives_and_are_not_read():
    s, b = np.random.default_rng(3).standard_normal((5, 5)), np.random.default_rng(4).standard_normal(5)
    kept, weights = [0, 2, 4], np.array([1.0, 0.0, 1.0, 0.0, 3.0])
    want = mi_alpha(s[np.ix_(kept, kept)], b[kept], alpha=0.4, weights=weights[kept])
    s[1], s[:, 1], s[3], s[:, 3], b[[1, 3]] = np.nan, np.nan, np.nan, np.nan, np.nan
    found = mi_alpha(s, b, alpha=0.4, weights=weights)
    assert found.value == want.value
    assert found.gradient.scores[np.ix_(kept, kept)].tobytes() == want.gradient.scores.tobytes()
    assert not found.gradient.scores[1].any() and not found.gradient.scores[:, 3].any()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_nothing_to_tell_apart_costs_nothing(size):
    with np.errstate(all="raise"):
        none = mi_alpha(np.ones((size, size)), np.ones(size), alpha=0.5, weights=np.zeros(size))
        alone = mi_alpha(np.full((1, 1), 5.0))
        others = mi_alpha(np.full((1, 1), 5.0), [0.0], alpha=0.5, leave_one_out=True)
    for found in (none, alone, others):
        assert found.value == 0 and not found.gradient.scores.any() and not found.gradient.baseline.any()


def test_scores_beyond_the_exponential_and_dtypes():
    s = np.array([[1e4, 0.0], [0.0, 1e4]])
    np.testing.assert_allclose(mi_alpha(s).value, -np.log(2), rtol=1e-12)
    half = mi_alpha(s, [0.0, 0.0], alpha=0.5)  # m_j / u_j is 2, u_j is e^1e4 / 4
    np.testing.assert_allclose(half.value, -1 - np.log(4) + 2, rtol=1e-10)
    with pytest.raises(NotFiniteError, match="baseline: pair 0 is too far below its scores"):
        mi_alpha(s, [0.0, 0.0], alpha=0.0)
    single = mi_alpha(np.eye(3, dtype=np.float32), gradient=True)
    assert single.gradient.scores.dtype == np.float32 and single.gradient.baseline.dtype == np.float64
    assert mi_alpha(np.eye(3), gradient=False).gradient is None


def test_gaussians_alpha_trades_bias_for_variance():
    """d correlated pairs of Gaussians, and the critic that knows them: the truth is -d / 2 log(1 - rho^2)."""
    random, d, rho, size, batches = np.random.default_rng(5), 3, 0.8, 8, 400
    truth = -d / 2 * np.log(1 - rho**2)
    kinds = {"tuba": (0.0, True), "mixed": (0.5, True), "infonce": (1.0, False), "pair in its own mean": (0.0, False)}
    estimates = {name: [] for name in kinds}
    for _ in range(batches):
        x, noise = random.standard_normal((2, size, d))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        # log p(y_j | x_i) / p(y_j): e^S has a mean of 1 over independent pairs, so b = 0 is the best baseline.
        apart = y[None, :, :] - rho * x[:, None, :]
        s = (-(apart**2) / (2 * (1 - rho**2)) + y[None] ** 2 / 2).sum(axis=2) - d / 2 * np.log(1 - rho**2)
        for name, (alpha, leave_one_out) in kinds.items():
            found = mi_alpha(s, np.zeros(size), alpha=alpha, leave_one_out=leave_one_out, gradient=False)
            estimates[name].append(-found.value)
    bias = {name: np.mean(found) - truth for name, found in estimates.items()}
    spread = {name: np.std(found) for name, found in estimates.items()}
    assert abs(bias["tuba"]) < 3 * spread["tuba"] / np.sqrt(batches)
    assert bias["infonce"] < -10 * spread["infonce"] / np.sqrt(batches) and np.max(estimates["infonce"]) < np.log(size)
    assert spread["tuba"] > spread["mixed"] > spread["infonce"]
    assert bias["pair in its own mean"] < bias["infonce"]


def test_a_cosine_critic():
    teacher, student = np.random.default_rng(6).standard_normal((2, 4, 3))

    def call(student):
        return mi_alpha(cosine_similarity(teacher, student) / 0.2, np.zeros(4), alpha=0.5)

    by_cosines = call(student).gradient.scores / 0.2
    found = cosine_similarity_gradient(by_cosines, teacher, student).y
    np.testing.assert_allclose(found, slopes(lambda at: call(at).value, student), atol=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"scores": np.zeros((2, 3))}, ArgumentError, r"scores must have shape \(2, 2\)"),
        ({"alpha": 1.5}, ArgumentError, "alpha must lie in 0..1"),
        ({"alpha": 0.5}, ArgumentError, "baseline must be given where alpha is below 1"),
        ({"baseline": [0.0]}, ArgumentError, r"baseline must have shape \(2,\)"),
        ({"baseline": [0.0, np.nan]}, NotFiniteError, "baseline: row 1 holds"),
        ({"scores": np.array([[0, 0], [0, np.nan]])}, NotFiniteError, "scores: row 1 holds"),
        ({"leave_one_out": 1}, ArgumentError, "leave_one_out must be True or False"),
    ],
)
def test_refuses(change, error, text):
    with pytest.raises(error, match=text):
        mi_alpha(**({"scores": np.zeros((2, 2))} | change))
