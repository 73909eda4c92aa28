"""Drawn tokens: means over all draws against whole divergences, differences, and the branches of the clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import (
    clipped_ratio,
    group_advantage,
    kl_estimate,
    log_prob_gradient,
    sampled_reverse_kl,
    step_weights,
    token_log_prob,
)
from fastdistill.errors import ArgumentError, NotFiniteError
from tests.distill.slopes import slopes


def log_law(logits, temperature=1.0):
    lead = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    return lead - np.log(np.exp(lead).sum(axis=-1, keepdims=True))


# ---- the sampled divergence ----
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_over_all_draws_value_and_gradient_are_those_of_the_reverse_divergence(temperature):
    student, teacher = np.random.default_rng(0).standard_normal((2, 1, 6))
    q, p = log_law(student, temperature)[0], log_law(teacher)[0]

    def divergence(at):
        log_q = log_law(at, temperature)
        return (np.exp(log_q) * (log_q - p)).sum()

    every = np.arange(6)
    found = sampled_reverse_kl(
        np.tile(student, (6, 1)), p, every, temperature=temperature, weights=np.exp(q), reduction="sum"
    )
    np.testing.assert_allclose(found.value, divergence(student), rtol=1e-12)
    np.testing.assert_allclose(found.gradient.sum(axis=0), slopes(divergence, student)[0], atol=1e-9)
    np.testing.assert_allclose(found.rows, q - p, atol=1e-13)


def test_gradient_is_that_of_the_log_probability_times_the_ratio_held_fixed():
    student, teacher = np.random.default_rng(1).standard_normal((2, 3, 5))
    tokens, weights = [4, -100, 0], np.array([1.0, 1.0, 0.5])
    found = sampled_reverse_kl(student, token_log_prob(teacher, tokens), tokens, weights=weights)
    ratio = token_log_prob(student, tokens) - token_log_prob(teacher, tokens)
    want = slopes(lambda at: (weights * ratio * token_log_prob(at, tokens)).sum() / 1.5, student)
    np.testing.assert_allclose(found.gradient, want, atol=1e-9)
    np.testing.assert_allclose(found.value, (weights * ratio).sum() / 1.5, rtol=1e-13)


def test_the_sampled_divergence_of_equals_is_nothing():
    student = np.random.default_rng(2).standard_normal((4, 5))
    found = sampled_reverse_kl(student, token_log_prob(student, [0, 1, 2, 3]), [0, 1, 2, 3])
    assert found.value == 0 and not found.gradient.any()


def test_on_policy_distillation_in_a_few_lines():
    random = np.random.default_rng(3)
    teacher, student = random.standard_normal((8, 5)), np.zeros((8, 5))
    before = (np.exp(log_law(student)) * (log_law(student) - log_law(teacher))).sum()
    for _ in range(400):
        rows = np.repeat(student, 64, axis=0)
        tokens = (rows + random.gumbel(size=rows.shape)).argmax(axis=1)
        log_p = token_log_prob(np.repeat(teacher, 64, axis=0), tokens)
        gradient = sampled_reverse_kl(rows, log_p, tokens).gradient
        student -= 4 * gradient.reshape(8, 64, 5).sum(axis=1)
    after = (np.exp(log_law(student)) * (log_law(student) - log_law(teacher))).sum()
    assert after < before / 50


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tokens": [0, 3]}, ArgumentError, "tokens must lie in 0..2"),
        ({"teacher_log_prob": [0.0]}, ArgumentError, r"teacher_log_prob must have shape \(2,\)"),
        ({"teacher_log_prob": [0.0, -np.inf]}, NotFiniteError, "teacher_log_prob: row 1 holds"),
        ({"student": np.array([[0, 0, 0], [0, -np.inf, 0]])}, NotFiniteError, "student: row 1 bans its token"),
        ({"temperature": 0}, ArgumentError, "temperature must lie in"),
    ],
)
def test_sampled_reverse_kl_refuses(change, error, text):
    arguments = {"student": np.zeros((2, 3)), "teacher_log_prob": [-1.0, -1.0], "tokens": [0, 1]}
    with pytest.raises(error, match=text):
        sampled_reverse_kl(**(arguments | change))


# ---- estimates ----
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimates_are_their_formulas_and_gradients_their_derivatives(kind):
    q, p = -np.abs(np.random.default_rng(4).standard_normal((2, 7))) * 2
    weights = np.arange(7.0)
    found = kl_estimate(q, p, kind, weights=weights)
    d = q - p
    np.testing.assert_allclose(
        found.rows[1:], {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}[kind][1:], rtol=1e-12
    )
    want = slopes(lambda at: kl_estimate(at, p, kind, weights=weights).value, q)
    np.testing.assert_allclose(found.gradient, want, atol=1e-9)
    same = kl_estimate(q, q, kind)
    assert same.value == 0 and (kind == "k1" or not same.gradient.any())
    assert kind == "k1" or (found.rows >= 0).all()


def test_estimates_over_all_draws():
    """k1 and k3 have the divergence as their mean, and k2's gradient by logits is, over draws, that of the divergence."""
    student, teacher = np.random.default_rng(5).standard_normal((2, 6))
    q, p = log_law(student), log_law(teacher)
    divergence = (np.exp(q) * (q - p)).sum()
    for kind in ("k1", "k3"):
        np.testing.assert_allclose((np.exp(q) * kl_estimate(q, p, kind).rows).sum(), divergence, rtol=1e-12)
    rows, every = np.tile(student, (6, 1)), np.arange(6)
    k2 = kl_estimate(q, p, "k2", weights=np.exp(q), reduction="sum")
    want = slopes(lambda at: (np.exp(log_law(at)) * (log_law(at) - p)).sum(), student)
    np.testing.assert_allclose(log_prob_gradient(rows, every, k2.gradient).sum(axis=0), want, atol=1e-9)
    k1 = kl_estimate(q, p, "k1", weights=np.exp(q), reduction="sum")
    np.testing.assert_allclose(log_prob_gradient(rows, every, k1.gradient).sum(axis=0), 0, atol=1e-15)


def test_estimates_of_what_is_far_away():
    tiny = kl_estimate([-1e-12], [-2e-12], "k3")
    np.testing.assert_allclose(tiny.gradient, 1e-12, rtol=1e-11)  # not lost in 1 - e^-d
    far = kl_estimate([-1e4], [-1.0], "k2")
    np.testing.assert_allclose(far.value, 9999**2 / 2)
    with pytest.raises(NotFiniteError, match="log_q: row 1 is too far below log_p for k3"):
        kl_estimate([-1.0, -1e4], [-1.0, -1.0])
    assert kl_estimate([-1.0, -1e4], [-1.0, -1.0], weights=[1, 0]).value == 0


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"kind": "k4"}, ArgumentError, "kind must be one of k1, k2, k3"),
        ({"log_p": [0.0]}, ArgumentError, r"log_p must have shape \(2,\)"),
        ({"log_q": [0.0, -np.inf]}, NotFiniteError, "log_q: row 1 holds"),
    ],
)
def test_kl_estimate_refuses(change, error, text):
    with pytest.raises(error, match=text):
        kl_estimate(**({"log_q": [-1.0, -1.0], "log_p": [-1.0, -1.0]} | change))


# ---- clipped ratios ----
@given(seed=st.integers(0, 2**32), epsilon=st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_clipped_ratio_is_its_formula(seed, epsilon):
    new, old, gain = np.random.default_rng(seed).standard_normal((3, 20))
    found = clipped_ratio(new, old, gain, epsilon=epsilon)
    ratio = np.exp(new - old)
    want = [-min(r * a, min(max(r, 1 - epsilon), 1 + epsilon) * a) for r, a in zip(ratio, gain, strict=True)]
    np.testing.assert_allclose(found.rows, want, rtol=1e-12)
    clipped = [r > 1 + epsilon if a > 0 else r < 1 - epsilon for r, a in zip(ratio, gain, strict=True)]
    np.testing.assert_allclose(found.info["clip_fraction"], np.mean(clipped), rtol=1e-14)


@pytest.mark.parametrize(
    ("ratio", "gain", "slope"),
    [(1.0, 1, -1.0), (1.1, 1, -1.1), (0.1, 1, -0.1), (1.3, 1, 0), (1.0, -1, 1.0), (0.9, -1, 0.9), (3.0, -1, 3.0), (0.7, -1, 0), (1.3, 0, 0)],
)  # fmt: skip
def test_only_what_would_go_further_is_clipped(ratio, gain, slope):
    """A good token is pulled up wherever it is, but for above 1 + epsilon; a bad one pushed down, but for below 1 - epsilon."""
    new = np.array([np.log(ratio)])

    def call(at):
        return clipped_ratio(at, [0.0], [gain], epsilon=0.2)

    np.testing.assert_allclose(call(new).gradient, [slope], rtol=1e-12)
    np.testing.assert_allclose(call(new).gradient, slopes(lambda at: call(at).value, new), atol=1e-9)


def test_the_first_step_is_the_plain_policy_gradient():
    log_prob, gain = -np.abs(np.random.default_rng(6).standard_normal(8)), np.random.default_rng(7).standard_normal(8)
    found = clipped_ratio(log_prob, log_prob, gain)
    assert found.info["clip_fraction"] == 0
    np.testing.assert_array_equal(found.gradient, -gain / 8)
    np.testing.assert_allclose(found.value, -gain.mean(), rtol=1e-13)


def test_ratios_beyond_all_bounds_are_clamped():
    with np.errstate(all="raise"):
        found = clipped_ratio([0.0, -5000.0, 0.0, -5000.0], [-5000.0, 0.0, -5000.0, 0.0], [1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(found.rows, [-1.2, -np.exp(-20), np.exp(20), 0.8], rtol=1e-12)
    assert not found.gradient.any() and found.info["clip_fraction"] == 0.5


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"epsilon": 1.5}, ArgumentError, "epsilon must lie in 0..1"),
        ({"advantages": [0.0]}, ArgumentError, r"advantages must have shape \(2,\)"),
        ({"old_log_prob": [0.0, np.nan]}, NotFiniteError, "old_log_prob: row 1 holds"),
    ],
)
def test_clipped_ratio_refuses(change, error, text):
    with pytest.raises(error, match=text):
        clipped_ratio(**({"log_prob": [-1.0, -1.0], "old_log_prob": [-1.0, -1.0], "advantages": [1, -1]} | change))


# ---- CJ-GRPO, whole ----
def cj_grpo(student, tokens, old, reference, rewards, rollouts, steps, epsilon=0.5, beta=0.04):
    """Value and gradient by the logits of the rows in which tokens were decided."""
    weights = step_weights(steps)
    log_q = token_log_prob(student, tokens)
    advantages = group_advantage(rewards).reshape(-1)[rollouts]
    policy = clipped_ratio(log_q, old, advantages, epsilon=epsilon, weights=weights, reduction="sum")
    drift = kl_estimate(log_q, reference, "k3", weights=weights, reduction="sum")
    by_log_q = policy.gradient + beta * drift.gradient
    return policy.value + beta * drift.value, log_prob_gradient(student, tokens, by_log_q)


def test_cj_grpo_is_its_formula_and_its_gradient_the_derivative():
    random = np.random.default_rng(8)
    student, tokens = random.standard_normal((9, 5)), random.integers(0, 5, 9)
    steps, rollouts = np.array([0, 0, 0, 1, 1, 3, 0, 1, 3]), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    log_q = token_log_prob(student, tokens)
    old, reference = log_q + random.normal(0, 0.4, 9), log_q + random.normal(0, 0.4, 9)
    rewards = [[1.0, 0.0]]
    value, gradient = cj_grpo(student, tokens, old, reference, rewards, rollouts, steps)
    ratio, gain, d = np.exp(log_q - old), np.where(rollouts == 0, 0.5, -0.5), reference - log_q
    cost = -np.minimum(ratio * gain, np.clip(ratio, 0.5, 1.5) * gain) + 0.04 * (np.exp(d) - d - 1)
    np.testing.assert_allclose(value, np.mean([cost[steps == step].mean() for step in (0, 1, 3)]), rtol=1e-12)
    want = slopes(lambda at: cj_grpo(at, tokens, old, reference, rewards, rollouts, steps)[0], student)
    np.testing.assert_allclose(gradient, want, atol=1e-9)
    shuffled = random.permutation(9)
    again = cj_grpo(
        student[shuffled], tokens[shuffled], old[shuffled], reference[shuffled], rewards, rollouts[shuffled], 5 - steps[shuffled]
    )  # fmt: skip
    np.testing.assert_allclose(again[0], value, rtol=1e-13)
    same, nothing = cj_grpo(student, tokens, log_q, log_q, [[1.0, 1.0]], rollouts, steps)
    assert same == 0 and not nothing.any()
