"""What the norm of a gradient is made of."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import check_array
from fastdistill.kernels.boundary import const, lib
from fastdistill.kernels.threads import check_threads


def sum_of_squares(x: np.ndarray, *, threads: int | None = 1) -> float:
    """The sum of the squares of all elements, in float64; the same bits for any number of threads.

    Parameters
    ----------
    x : float32 (n,)
        n >= 0
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    float
        finite where every element is: no square of a float32, and no sum of so many, is too large for a float64

    Raises
    ------
    ArgumentError
    """
    (n,) = check_array("x", x, np.float32, ("n",))
    return float(lib.fd_sum_of_squares(n, const(x), check_threads(threads)))
