"""A mean of parameters over the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.errors import BusyError
from fastdistill.kernels import sgd_step
from fastdistill.train.parameters import Parameter


class EMA:
    """The exponential moving mean of parameters, which begins as what they are.

    Parameters
    ----------
    parameters : Mapping[str, Parameter]
    decay : float
        0 to 1: what an update keeps of the mean, 0.999 for one over about a thousand steps
    threads : int | None, default None
        at most so many; None: as many as this process may use

    Raises
    ------
    ArgumentError
    """

    def __init__(self, parameters: Mapping[str, Parameter], decay: float, *, threads: int | None = None) -> None:
        self.parameters, self.decay = parameters, check_number("decay", decay, 0, 1)
        self._threads, self._swapped = threads, False
        self._means = {name: parameter.value.copy() for name, parameter in parameters.items()}

    @property
    def state(self) -> dict[str, np.ndarray]:
        """float32 (n,) of each parameter, by name, as flat as its value: the means themselves."""
        return dict(self._means)

    def update(self) -> None:
        """Move each mean by 1 - decay of its distance to the value.

        Raises
        ------
        BusyError
            inside `swapped`
        """
        self._refuse_swapped()
        for name, parameter in self.parameters.items():  # a step along mean - value
            sgd_step(
                self._means[name], parameter.value, learning_rate=1 - self.decay, weight_decay=1.0, gradient_scale=-1.0, threads=self._threads
            )  # fmt: skip

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """A block in which the parameters are their means: to evaluate these, or to save them.

        Raises
        ------
        BusyError
            inside another
        """
        self._refuse_swapped()
        self._swapped = True
        try:
            self._swap()
            yield
        finally:
            self._swap()
            self._swapped = False

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            value = parameter.value.copy()
            parameter.value[:] = self._means[name]
            self._means[name][:] = value

    def _refuse_swapped(self) -> None:
        if self._swapped:
            raise BusyError("the parameters are their means inside `swapped`: leave it first")
