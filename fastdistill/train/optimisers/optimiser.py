"""What optimisers have in common: the parameters, what is kept of each, groups, clipping."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.errors import NotFiniteError
from fastdistill.runtime.profile import stage
from fastdistill.train.optimisers.clip_norm import clip_norm
from fastdistill.train.optimisers.groups import MOST, Group, Rule, rules
from fastdistill.train.parameters import Parameter

LARGEST_NORM = 1e19  # whose square a float32 still holds


class Optimiser(ABC):
    """Steps parameters along their gradients, in place.

    A step has the same bits for any number of threads and on every instruction set.

    Attributes
    ----------
    parameters : Mapping[str, Parameter]
    steps : int
        made so far; what goes on from a saved `state` sets it
    """

    kept: tuple[str, ...]  # what is kept of each parameter from step to step

    def __init__(
        self, parameters: Mapping[str, Parameter], weight_decay: float, groups: Iterable[Group], threads: int | None
    ) -> None:
        self.parameters, self.steps = parameters, 0
        self._threads, self._rules = threads, rules(parameters, weight_decay, groups)
        self._arrays = {name: [np.zeros_like(p.value) for _ in self.kept] for name, p in parameters.items()}
        self._scale: float | None = None  # of the gradients, once they have been looked at

    @property
    def state(self) -> dict[str, np.ndarray]:
        """float32 (n,) each, as flat as their parameters: what the next step depends on beside `steps`, "first/NAME" and so on.

        The arrays themselves: what is written into them is what is gone on from.
        """
        return {
            f"{kind}/{name}": array
            for name, arrays in self._arrays.items()
            for kind, array in zip(self.kept, arrays, strict=True)
        }

    def clip(self, most: float) -> float:
        """Bound the norm of all gradients together, for the next step, which multiplies them as it reads them.

        Parameters
        ----------
        most : float
            above 0

        Returns
        -------
        float
            the norm before that

        Raises
        ------
        ArgumentError
        NotFiniteError
            where a gradient is not finite; it names the parameter
        """
        with stage("step", "clip"):
            norm, self._scale = clip_norm(self.parameters, most, threads=self._threads)
        return norm

    def step(self, learning_rate: float) -> None:
        """Step every parameter, and clear its gradient.

        Parameters
        ----------
        learning_rate : float
            0 to 1e3

        Raises
        ------
        ArgumentError
        NotFiniteError
            where a gradient is not finite, or, not clipped, has a norm beyond 1e19: it names the parameter, and nothing
            has changed
        """
        learning_rate = check_number("learning_rate", learning_rate, 0, MOST)
        if self._scale is None:
            norm = self.clip(math.inf)
            if norm > LARGEST_NORM:
                self._scale = None
                raise NotFiniteError(f"the norm of the gradients is {norm:g}, beyond {LARGEST_NORM:g}: clip them")
        scale, self._scale = self._scale, None
        assert scale is not None
        with stage("step", type(self).__name__):
            for name, parameter in self.parameters.items():
                self._step(parameter, self._arrays[name], learning_rate, self._rules[name], scale)
        self.steps += 1

    @abstractmethod
    def _step(
        self, parameter: Parameter, kept: list[np.ndarray], learning_rate: float, rule: Rule, scale: float
    ) -> None:
        """Step one parameter, and clear its gradient."""
