"""What changes over a training, as functions of its step."""

from __future__ import annotations

import math

from fastdistill.arguments import check_integer, check_number
from fastdistill.errors import ArgumentError

_MOST_STEPS = 2**63 - 1


def held_cosine(step: int, steps: int, *, start: float = 0.9, end: float = 0.5, held: float = 0.1) -> float:
    """A value that stays at its start for a share of the steps, and then goes to its end along half a cosine.

    With its defaults, the share of the consistency term beside cross entropy (Liang et al. 2026, CD4LM).

    Parameters
    ----------
    step : int
        from 0; from `steps` on the value is its end
    steps : int
        at least 1
    start, end : float, default 0.9 and 0.5
        the values at the first step and at the last
    held : float, default 0.1
        0..1, the share of the steps before it moves

    Returns
    -------
    float

    Raises
    ------
    ArgumentError
    """
    step, steps = _step(step, steps)
    start, end = check_number("start", start, -1e300, 1e300), check_number("end", end, -1e300, 1e300)
    still = check_number("held", held, 0, 1) * steps
    if step >= steps:
        return end
    return end + (start - end) * (1 + math.cos(math.pi * max(0.0, step - still) / (steps - still or 1))) / 2


def polynomial_decay(step: int, steps: int, *, start: float = 0.1, power: float = 2.0) -> float:
    """start (1 - step / steps)^power, and 0 from `steps` on.

    With its defaults, the share of unlabelled examples that a round adds to the labelled ones (Du et al. 2023, WAD).

    Parameters
    ----------
    step : int
        from 0
    steps : int
        at least 1
    start : float, default 0.1
        the value at step 0
    power : float, default 2.0
        above 0

    Returns
    -------
    float

    Raises
    ------
    ArgumentError
    """
    step, steps = _step(step, steps)
    start = check_number("start", start, -1e300, 1e300)
    power = check_number("power", power, 0, 1000)
    if power == 0:
        raise ArgumentError("power must be above 0, got 0")
    return start * (1 - min(step, steps) / steps) ** power


def _step(step: int, steps: int) -> tuple[int, int]:
    return check_integer("step", step, 0, _MOST_STEPS), check_integer("steps", steps, 1, _MOST_STEPS)
