"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastdistill.arguments import check_choice, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.train.optimisers.groups import MOST

SHAPES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """A learning rate that rises evenly to its peak and then stays, or falls to a floor: a function of the step alone.

    Parameters
    ----------
    shape : str
        "constant"; "linear"; or "cosine", half a period (Loshchilov and Hutter 2017)
    learning_rate : float
        0 to 1e3: the peak
    steps : int | None, default None
        of the run, at whose end the floor is reached; a constant one needs none
    warm_up : int, default 0
        steps that it rises in, from learning_rate / warm_up; the last of them has the peak
    floor : float, default 0.0
        0 to learning_rate: what it falls to, and stays at behind `steps`

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> [fd.train.Schedule("linear", 1.0, steps=6, warm_up=2)(step) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    shape: str
    learning_rate: float
    steps: int | None = None
    warm_up: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, SHAPES)
        peak = check_number("learning_rate", self.learning_rate, 0, MOST)
        check_number("floor", self.floor, 0, peak)
        check_integer("warm_up", self.warm_up, 0, 2**53)
        if self.steps is not None:
            check_integer("steps", self.steps, self.warm_up, 2**53)
        elif self.shape != "constant":
            raise ArgumentError(f"steps must say where a {self.shape} schedule ends, got None")

    def __call__(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        if self.shape == "constant" or self.steps is None:
            return self.learning_rate
        gone = 1.0 if step >= self.steps else (step - self.warm_up) / (self.steps - self.warm_up)
        left = 1 - gone if self.shape == "linear" else (1 + math.cos(math.pi * gone)) / 2
        return self.floor + (self.learning_rate - self.floor) * left
