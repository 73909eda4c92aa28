"""The exponential and the logarithm that every kernel uses."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import REAL, check_array
from fastdistill.kernels.boundary import bits, const, lib, pointer


def exp_log(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e^x and log x, the same bits on every level.

    Parameters
    ----------
    x : float32 or float64 (n,)

    Returns
    -------
    exp, log : float32 or float64 (n,)
        of the dtype of x; e^x of float32 is 0 below -86.98, of float64 below -708, and above 708 it is that of 708; log
        is defined for positive normal numbers
    """
    (n,) = check_array("x", x, REAL, ("n",))
    exp_out, log_out = np.empty(n, x.dtype), np.empty(n, x.dtype)
    lib.fd_exp_log(bits(x), n, const(x), pointer(exp_out), pointer(log_out))
    return exp_out, log_out
