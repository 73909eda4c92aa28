"""What `kernels.draft_and_verify` means."""

from __future__ import annotations

import numpy as np

from fastdistill.errors import ArgumentError


def draft_and_verify(states, tokens, scores, steps, mask_token, drafts):
    """How many of the guesses states[1:] (branches - 1, n) are right, and the next drafts (k, n)."""

    def step(state, branch, number):
        return unmasked(state, tokens[branch], scores[branch], steps[number], mask_token, f"tokens[{branch}, ")

    accepted = 0
    while accepted + 1 < len(states) and (step(states[accepted], accepted, accepted) == states[accepted + 1]).all():
        accepted += 1
    ahead = [states[accepted]]
    for number in range(accepted, min(accepted + drafts, len(steps))):
        ahead.append(step(ahead[-1], accepted, number))
    return accepted, np.array(ahead)[1:]


def unmasked(state, tokens, scores, step, mask_token, name="tokens["):
    """The state (n,) after one step (start, end, quota): the best masked positions of the window get their tokens (n,)."""
    start, end, quota = map(int, step)
    eligible = [at for at in range(start, end) if state[at] == mask_token and not np.isnan(scores[at])]
    chosen = sorted(eligible, key=lambda at: (-scores[at], at))[:quota]
    for at in sorted(chosen):
        if tokens[at] == mask_token:
            raise ArgumentError(f"{name}{at}] must not be the mask token where it is committed, got {tokens[at]}")
    after = state.copy()
    after[chosen] = tokens[chosen]
    return after
