"""The norm of all gradients together, and what it is bounded by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastdistill.arguments import check_number
from fastdistill.errors import NotFiniteError
from fastdistill.kernels import sum_of_squares
from fastdistill.train.parameters import Parameter


class Clipped(NamedTuple):
    """What is to become of gradients.

    Attributes
    ----------
    norm : float
        of all of them together, as they are
    scale : float
        what multiplies them: most / norm where the norm is larger than that, else 1
    """

    norm: float
    scale: float


def clip_norm(parameters: Mapping[str, Parameter], most: float = math.inf, *, threads: int | None = None) -> Clipped:
    """The Euclidean norm of all gradients as one vector, in float64, and the scale that bounds it.  Nothing is changed.

    Parameters
    ----------
    parameters : Mapping[str, Parameter]
    most : float, default inf
        above 0: the largest norm that is to be; ``torch.nn.utils.clip_grad_norm_`` divides by norm + 1e-6, here it is the norm
    threads : int | None, default None
        at most so many; None: as many as this process may use

    Returns
    -------
    Clipped
        the same bits for any number of threads

    Raises
    ------
    ArgumentError
    NotFiniteError
        where a gradient holds a NaN or an infinity; it names the parameter
    """
    most = check_number("most", most, 1e-30, math.inf)
    sums = []
    for name, parameter in parameters.items():
        sums.append(sum_of_squares(parameter.gradient, threads=threads))
        if not math.isfinite(sums[-1]):
            bad = parameter.gradient[~np.isfinite(parameter.gradient)]
            raise NotFiniteError(
                f"the gradient of {name} is not finite: {bad.size} of its {parameter.gradient.size} numbers, the first of them {bad[0]}"
            )
    norm = math.sqrt(math.fsum(sums))
    return Clipped(norm, most / norm if norm > most else 1.0)
