"""The exponential and the logarithm that every kernel uses."""

from __future__ import annotations

import numpy as np

from fastdistill.kernels.boundary import check_array, check_status, lib, pointer


def exp_log(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e^x and log x, the same bits on every level.

    x        float32 (n,)
    returns  float32 (n,), float32 (n,); e^x is 0 below -86.98; log is defined for positive normal numbers
    """
    (n,) = check_array("x", x, np.float32, (None,))
    exp_out, log_out = np.empty(n, np.float32), np.empty(n, np.float32)
    check_status("exp_log", lib.fd_exp_log(n, pointer(x), pointer(exp_out), pointer(log_out)))
    return exp_out, log_out
