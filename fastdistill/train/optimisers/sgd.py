"""Gradient descent over parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.kernels import sgd_step
from fastdistill.train.optimisers.groups import Group, Rule
from fastdistill.train.optimisers.optimiser import Optimiser
from fastdistill.train.parameters import Parameter


class SGD(Optimiser):
    """Gradient descent with momentum, as ``torch.optim.SGD`` has it.

    Parameters
    ----------
    parameters : Mapping[str, Parameter]
        which are stepped in place
    momentum : float, default 0.0
        what is kept of the velocity
    nesterov : bool, default False
    weight_decay : float, default 0.0
        of parameters of two axes and more
    decoupled : bool, default False
        whether the decay is kept out of the gradient and its velocity
    groups : Iterable[Group], default ()
        parameters for which something else holds; of several whose pattern a name matches the first
    threads : int | None, default None
        at most so many; None: as many as this process may use

    Raises
    ------
    ArgumentError
    """

    kept: tuple[str, ...] = ("velocity",)

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        groups: Iterable[Group] = (),
        threads: int | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "decoupled": decoupled}
        self.kept = SGD.kept if check_number("momentum", momentum, 0, 1) else ()
        kept = np.empty((len(self.kept), 0), np.float32)
        sgd_step(*np.empty((2, 0), np.float32), *kept, learning_rate=0.0, **self._settings, threads=threads)  # checks
        super().__init__(parameters, weight_decay, groups, threads)

    def _step(
        self, parameter: Parameter, kept: list[np.ndarray], learning_rate: float, rule: Rule, scale: float
    ) -> None:
        sgd_step(
            parameter.value, parameter.gradient, *kept, learning_rate=learning_rate * rule.learning_rate_factor,
            weight_decay=rule.weight_decay, gradient_scale=scale, zero_gradient=True, threads=self._threads, **self._settings,
        )  # fmt: skip
