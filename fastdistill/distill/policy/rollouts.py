"""How much the tokens of a policy's rollouts count."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import as_array, check_flag
from fastdistill.distill.loss import counted

_STD_FLOOR = 1e-4  # what GRPO adds to the standard deviation


def group_advantage(rewards: Any, *, divide_by_std: bool = False) -> np.ndarray:
    """How much better each rollout of a prompt was than the prompt's rollouts are on average (Shao et al. 2024, GRPO).

    Parameters
    ----------
    rewards : float (prompts, rollouts)
    divide_by_std : bool, default False
        whether the differences are divided by the unbiased standard deviation of the prompt's rewards plus 1e-4

    Returns
    -------
    np.ndarray float64 (prompts, rollouts)
        sums to 0 over the rollouts of a prompt; 0 where all have one reward, and where there is one rollout

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the prompt
    """
    given = as_array("rewards", rewards, np.float64, ("prompts", "rollouts"))
    divide_by_std = check_flag("divide_by_std", divide_by_std)
    prompts, rollouts = given.shape
    found = counted("rewards", given, np.ones(prompts))
    if rollouts == 0:
        return found
    equal = (found == found[:, :1]).all(axis=1, keepdims=True)
    found = np.where(equal, 0, found - found.mean(axis=1, keepdims=True))
    if divide_by_std:
        found = found / (np.sqrt((found * found).sum(axis=1, keepdims=True) / max(rollouts - 1, 1)) + _STD_FLOOR)
    return found


def step_weights(steps: Any, trajectories: Any = None) -> np.ndarray:
    """Weights by which every step of a trajectory counts alike, however many tokens it has decided (CJ-GRPO, arXiv 2509.23924).

    1 / (trajectories x steps of this trajectory x tokens of this step): of steps that have tokens, so that none is divided by 0.

    Parameters
    ----------
    steps : int (n,)
        the step in which each token was decided; below 0: it does not count, as after the end of a text
    trajectories : int (n,), optional
        which rollout each token belongs to; None: steps are those of a whole batch, as in the authors' code

    Returns
    -------
    np.ndarray float64 (n,)
        sums to 1, or is 0 where nothing counts: weights= of an objective with reduction="sum"

    Raises
    ------
    ArgumentError
    """
    step = as_array("steps", steps, np.int64, ("n",))
    rollout = (
        np.zeros_like(step) if trajectories is None else as_array("trajectories", trajectories, np.int64, step.shape)
    )
    counts = step >= 0
    found = np.zeros(len(step))
    pairs, which, tokens = np.unique(
        np.stack([rollout[counts], step[counts]]), axis=1, return_inverse=True, return_counts=True
    )
    rollouts, owner, lengths = np.unique(pairs[0], return_inverse=True, return_counts=True)
    each = 1 / (max(len(rollouts), 1) * lengths[owner] * tokens)
    found[counts] = each[which.reshape(-1)]
    return found
