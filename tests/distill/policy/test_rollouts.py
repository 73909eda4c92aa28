"""What rollouts of one prompt are worth beside each other, and weights by which steps count alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import group_advantage, step_weights
from fastdistill.errors import ArgumentError, NotFiniteError


@given(seed=st.integers(0, 2**32), rollouts=st.integers(2, 6), scale=st.sampled_from([1.0, 1e5]))
def test_advantages_sum_to_nothing_in_each_group(seed, rollouts, scale):
    rewards = np.random.default_rng(seed).standard_normal((3, rollouts)) * scale + scale
    plain, divided = group_advantage(rewards), group_advantage(rewards, divide_by_std=True)
    np.testing.assert_allclose(plain, rewards - rewards.mean(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(plain.sum(axis=1), 0, atol=1e-13 * scale)
    want = plain / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(divided, want, rtol=1e-12)


@pytest.mark.parametrize("divide_by_std", [False, True])
def test_equal_rewards_are_worth_nothing(divide_by_std):
    for rewards in (np.full((2, 3), 0.1), [[5.0], [7.0]], np.zeros((2, 0)), np.zeros((0, 3))):
        found = group_advantage(rewards, divide_by_std=divide_by_std)
        assert found.shape == np.shape(rewards) and not found.any()
    assert group_advantage([[1, 0], [3, 3]]).tolist() == [[0.5, -0.5], [0, 0]]


@given(seed=st.integers(0, 2**32), size=st.integers(0, 20))
def test_steps_of_a_trajectory_count_alike_and_trajectories_do(seed, size):
    random = np.random.default_rng(seed)
    steps, trajectories = random.integers(-1, 4, size), random.integers(5, 8, size)
    found = step_weights(steps, trajectories)
    assert (found[steps < 0] == 0).all() and (found[steps >= 0] > 0).all()
    counting = np.unique(trajectories[steps >= 0])
    for trajectory in counting:
        own = np.unique(steps[(trajectories == trajectory) & (steps >= 0)])
        for step in own:
            tokens = (trajectories == trajectory) & (steps == step)
            np.testing.assert_allclose(found[tokens], 1 / (len(counting) * len(own) * tokens.sum()), rtol=1e-14)
    np.testing.assert_allclose(found.sum(), 1 if len(counting) else 0, rtol=1e-13)
    together = step_weights(steps)
    np.testing.assert_allclose(together, step_weights(steps, np.zeros(size, int)), rtol=1e-15)


def test_steps_in_which_nothing_was_decided_are_skipped():
    values = np.array([1.0, 2.0, 3.0, 10.0])
    assert values @ step_weights([0, 0, 0, 7]) == 6.0
    assert step_weights([-100, -100]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: group_advantage([1.0, 2.0]), ArgumentError, r"rewards must have shape \(prompts, rollouts\)"),
        (lambda: group_advantage([[1.0, np.nan]]), NotFiniteError, "rewards: row 0 holds"),
        (lambda: group_advantage([[1.0]], divide_by_std=1), ArgumentError, "divide_by_std must be True or False"),
        (lambda: step_weights([0.5]), ArgumentError, "steps must hold integers"),
        (lambda: step_weights([0, 1], [0]), ArgumentError, r"trajectories must have shape \(2,\)"),
    ],
)
def test_refuses(call, error, text):
    with pytest.raises(error, match=text):
        call()
