"""AdamW over parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastdistill.kernels import adamw_step
from fastdistill.train.optimisers.groups import Group, Rule
from fastdistill.train.optimisers.optimiser import Optimiser
from fastdistill.train.parameters import Parameter


class AdamW(Optimiser):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), with the arithmetic of ``torch.optim.AdamW``.

    Parameters
    ----------
    parameters : Mapping[str, Parameter]
        which are stepped in place
    beta1, beta2 : float, default 0.9 and 0.999
        what the moving means of the gradient and of its square keep
    epsilon : float, default 1e-8
    weight_decay : float, default 0.01
        of parameters of two axes and more
    groups : Iterable[Group], default ()
        parameters for which something else holds; of several whose pattern a name matches the first
    threads : int | None, default None
        at most so many; None: as many as this process may use

    Raises
    ------
    ArgumentError
    """

    kept = ("first", "second")

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        groups: Iterable[Group] = (),
        threads: int | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
        adamw_step(
            *np.empty((4, 0), np.float32), step=1, learning_rate=0.0, **self._settings, threads=threads
        )  # checks
        super().__init__(parameters, weight_decay, groups, threads)

    def _step(
        self, parameter: Parameter, kept: list[np.ndarray], learning_rate: float, rule: Rule, scale: float
    ) -> None:
        adamw_step(
            parameter.value, parameter.gradient, *kept, step=self.steps + 1, learning_rate=learning_rate * rule.learning_rate_factor,
            weight_decay=rule.weight_decay, gradient_scale=scale, zero_gradient=True, threads=self._threads, **self._settings,
        )  # fmt: skip
