"""How many positions each step fills, where that is fixed beforehand.

Sources: LLaDA (Nie et al. 2025): "linear"; MaskGIT (Chang et al. 2022): "cosine"; Dream (Ye et al. 2025): "time"; ASS
(Yang et al. 2025): "ascending".
"""

from __future__ import annotations

from math import cos, floor, log2, pi

from fastdistill.errors import ArgumentError

KINDS = ("linear", "cosine", "time", "ascending")
_EARLIEST = 1e-3  # Dream's time grid runs from 1 to here


def quotas(kind: str, masked: int, steps: int | None = None) -> list[int]:
    """Positions to fill in each step: at least one in each, `masked` in all.

    Parameters
    ----------
    kind : str
        "linear": equal steps, the remainder first; "cosine": few at first, then more and more; "time": as shares of
        what is left on an even grid of times; "ascending": each step twice the one before, or in such a ratio that the
        steps suffice
    masked : int
    steps : int, optional
        None: one a position, of "ascending": floor(log2(masked)); never more than there are positions
    """
    if masked == 0:
        return []
    if steps is None:
        steps = max(int(log2(masked)), 1) if kind == "ascending" else masked
    steps = min(steps, masked)
    filled, made = 0, []
    for step in range(steps):
        left = steps - 1 - step  # steps after this one, each of which needs a position
        until = masked if not left else _filled(kind, masked, steps, step, filled)
        made.append(min(max(until - filled, 1), masked - filled - left))
        filled += made[-1]
    return made


def _filled(kind: str, masked: int, steps: int, step: int, filled: int) -> int:
    """Positions that should be filled after a step that is not the last."""
    if kind == "linear":
        return masked // steps * (step + 1) + min(step + 1, masked % steps)
    if kind == "cosine":
        return masked - floor(masked * cos(pi / 2 * (step + 1) / steps))
    if kind == "time":
        now, then = (1 - (1 - _EARLIEST) * at / steps for at in (step, step + 1))
        return filled + int((masked - filled) * (1 - then / now))
    base = _ratio(masked, steps)
    return floor((base ** (step + 1) - 1) / (base - 1)) if base > 1 else step + 1


def _ratio(masked: int, steps: int) -> float:
    """b with 1 + b + ... + b^(steps - 1) = masked; 2 where the last step takes what doubling leaves over, less than it has."""
    if int(log2(masked)) == steps:
        return 2.0
    low, high = 1.0, float(masked)
    for _ in range(100):
        middle = (low + high) / 2
        fits = steps * log2(middle) < 1000 and sum(middle**i for i in range(steps)) <= masked
        low, high = (middle, high) if fits else (low, middle)
    return low


def quotas_of_blocks(kind: str, sizes: list[int], steps: int | None) -> list[list[int]]:
    """The quotas of each block; steps are dealt to the blocks evenly, the remainder to the first ones.

    Raises
    ------
    ArgumentError
        where there are fewer steps than blocks
    """
    if steps is None:
        return [quotas(kind, size) for size in sizes]
    if sizes and steps < len(sizes):
        raise ArgumentError(f"steps must be at least the number of blocks, {len(sizes)}, got {steps}")
    each, more = divmod(steps, max(len(sizes), 1))
    return [quotas(kind, size, each + (number < more)) for number, size in enumerate(sizes)]
