"""Several steps of a static unmasking schedule from one forward: which guesses were right, and the next ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastdistill.arguments import as_array, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import const, lib, pointer


class Drafted(NamedTuple):
    """How far the schedule has come, and what comes next.

    Attributes
    ----------
    accepted : int
        how many guesses in a row are right: states[accepted] is the furthest state that is certain
    drafts : int32 (k, n)
        that state after 1, 2, ... further steps; the first is certain, the others are guesses
    """

    accepted: int
    drafts: np.ndarray


def draft_and_verify(
    states: np.ndarray, tokens: np.ndarray, scores: np.ndarray, steps: np.ndarray, mask_token: int, drafts: int
) -> Drafted:
    """Check guesses of a static schedule's coming states, and draft the states that follow.

    A step (start, end, quota) commits, of the positions in start..end - 1 that are masked and whose score is not NaN,
    the `quota` best, all where there are fewer: the highest scores, ties to the lowest positions. A committed position
    gets its token. A guess is right where it is what its step makes of the state before it, by that state's tokens and
    scores. So whatever was guessed, the accepted states and the first draft are those of one forward a step.

    Parameters
    ----------
    states : int32 (branches, n)
        branches >= 1: the first is certain, states[j] is a guess of it after steps[:j]
    tokens : int32 (branches, n)
        the model's choice of each position, given each state
    scores : float32 (branches, n)
        the higher, the earlier a position is committed
    steps : int32 (s, 3)
        s >= branches - 1: start, end and quota of the steps after states[0]
    mask_token : int
        what a masked position holds
    drafts : int
        1 or more: the most to make

    Returns
    -------
    Drafted
        k = min(drafts, s - accepted)

    Raises
    ------
    ArgumentError
        also where a step does not lie within n, and where one would commit the mask token

    References
    ----------
    Wu and Zhang 2025, FreeDave
    """
    states = as_array("states", states, np.int32, ("branches", "n"))
    branches, n = states.shape
    tokens = as_array("tokens", tokens, np.int32, (branches, n))
    scores = as_array("scores", scores, np.float32, (branches, n))
    steps = as_array("steps", steps, np.int32, ("steps", 3))
    count = len(steps)
    if branches == 0 or branches > count + 1:
        raise ArgumentError(f"states must hold 1..{count + 1} states, one more than there are steps; got {branches}")
    mask_token = check_integer("mask_token", mask_token, -(2**31), 2**31 - 1)
    most = min(check_integer("drafts", drafts, 1, 2**31 - 1), count)
    drafted, workspace = np.empty((most, n), np.int32), np.empty(n, np.uint64)
    accepted = lib.fd_draft_and_verify(
        branches, n, count, const(states), const(tokens), const(scores), const(steps), mask_token, most,
        pointer(drafted), pointer(workspace),
    )  # fmt: skip
    if accepted < 0:
        _refuse(-1 - accepted, steps, tokens)
    return Drafted(accepted, drafted[: min(most, count - accepted)])


def _refuse(at: int, steps: np.ndarray, tokens: np.ndarray) -> None:
    """Say which step, or which token, C has stumbled over."""
    n = tokens.shape[1]
    if at < len(steps):
        wanted = f"0 <= start <= end <= {n} and quota >= 0"
        raise ArgumentError(f"steps[{at}] must have {wanted}, got {steps[at].tolist()}")
    branch, position = divmod(at - len(steps), n)
    raise ArgumentError(
        f"tokens[{branch}, {position}] must not be the mask token where it is committed, got {tokens[branch, position]}"
    )
