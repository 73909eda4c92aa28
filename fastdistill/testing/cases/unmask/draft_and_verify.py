"""Guesses of a static unmasking schedule, right up to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.errors import ArgumentError
from fastdistill.messages import short
from fastdistill.reference.unmask.draft_and_verify import draft_and_verify as reference_draft_and_verify
from fastdistill.reference.unmask.draft_and_verify import unmasked
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, same

# No position, one, one under, at and over a block of 16 (states are compared in such), and one long row.
LENGTHS = [0, 1, 2, 7, 15, 16, 17, 33, 300]
SCORES = np.array([0, -0.0, 1, 1, -2, 0.5, 1e-45, -1e-45, np.inf, -np.inf, np.nan, -np.nan], np.float32)  # ties abound
MASKS = [0, 7, -1, 2**31 - 1, -(2**31)]


def _schedule(random: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Windows anywhere, or the blocks of a text from left to right; quotas of a position or two, of none, of more than there are."""
    if random.random() < 0.5:
        windows = np.sort(random.integers(0, n + 1, (count, 2)), axis=1)
    else:
        block = int(random.integers(1, n + 2))
        starts = np.sort(random.integers(0, n // block + 1, count)) * block
        windows = np.stack([starts, np.minimum(starts + block, n)], axis=1)
    return np.column_stack([windows, random.choice([0, 1, 1, 2, n, 2**31 - 1], count)]).astype(np.int32)


def cases(draw: Choices) -> Case:
    """Guesses that are right up to one of them, scores with ties and NaN, and now and then a mask among the tokens."""
    n, count, mask = draw.choice(LENGTHS), draw.integer(0, 6), draw.choice(MASKS)
    random = draw.generator()
    branches, right = int(random.integers(1, count + 2)), draw.integer(0, 6)
    steps = _schedule(random, n, count)
    tokens = random.integers(-(2**31), 2**31, (branches, n)).astype(np.int32)
    tokens[tokens == mask] ^= 1
    scores = random.choice(SCORES, (branches, n))
    states = random.integers(0, 5, (branches, n)).astype(np.int32)
    states[0, random.random(n) < draw.choice([0.1, 0.5, 1])] = mask
    for j in range(branches - 1):
        states[j + 1] = unmasked(states[j], tokens[j], scores[j], steps[j], mask)
        if j >= right and n:
            states[j + 1, random.integers(n)] ^= 1 << random.integers(31)
    tokens[random.random((branches, n)) < draw.choice([0, 0, 0.02])] = mask
    arrays = {"states": states, "tokens": tokens, "scores": scores, "steps": steps}
    return {**arrays, "mask_token": mask, "drafts": draw.integer(1, 8)}


def check(case: Case, function: Callable[..., Any] = kernels.draft_and_verify) -> Any:
    """Equal counts and drafts, or the same refusal; and no input is changed."""
    before = {name: case[name].copy() for name in ("states", "tokens", "scores", "steps")}
    got, want = (_outcome(call, case) for call in (function, reference_draft_and_verify))
    if isinstance(got, str) or isinstance(want, str):
        holds(isinstance(got, str) and got == want, f"the call gives {short(got)}, the reference {short(want)}")
    else:
        same("accepted", got[0], want[0])
        same("drafts", got[1], want[1], np.int32)
    for name, array in before.items():
        same(f"the input {name}", case[name], array)
    return got


def _outcome(function: Callable[..., Any], case: Case) -> Any:
    """What a call gives, or what it says is wrong."""
    try:
        return tuple(function(**case))
    except ArgumentError as error:
        return str(error)
