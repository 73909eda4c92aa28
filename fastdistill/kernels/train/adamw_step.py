"""One step of AdamW, in one pass over memory."""

from __future__ import annotations

import math

import numpy as np

from fastdistill.arguments import check_array, check_flag, check_integer, check_number
from fastdistill.kernels.boundary import ffi, lib, pointer, written
from fastdistill.kernels.threads import check_threads

LARGEST_BETA = 0.999999


def adamw_step(
    value: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    gradient_scale: float = 1.0,
    zero_gradient: bool = False,
    threads: int | None = 1,
) -> np.ndarray:
    """One step of AdamW, in place: the weight decay is decoupled, apart from the gradient and its moments.

    Parameters
    ----------
    value : float32 (n,)
        writable; n >= 0: what is optimised, in any order; overwritten and returned
    gradient : float32 (n,)
        writable
    first, second : float32 (n,)
        writable: the moving means of the gradient and of its square, zeros before the first step; overwritten
    step : int
        the number of this step, from 1: the means are corrected for having begun as zeros
    learning_rate : float
        0 to 1e6
    beta1, beta2 : float, default 0.9 and 0.999
        0 to 0.999999: what the means keep
    epsilon : float, default 1e-8
        1e-30 to 1e6: beside the square root of the second mean
    weight_decay : float, default 0.0
        0 to 1e6: learning_rate times it is taken of each value
    gradient_scale : float, default 1.0
        within 1e30 of 0: multiplies the gradient first, which clips it
    zero_gradient : bool, default False
        whether the gradient is zeros afterwards, which costs next to nothing here
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    np.ndarray (n,)
        value

    Raises
    ------
    ArgumentError
    BusyError
        where another call is writing one of the arrays
    """
    (n,) = check_array("value", value, np.float32, ("n",), written=True)
    arrays = {"value": value, "gradient": gradient, "first": first, "second": second}
    for name in ("gradient", "first", "second"):
        check_array(name, arrays[name], np.float32, (n,), written=True)
    step = check_integer("step", step, 1, 2**53)
    beta1, beta2 = (check_number(name, beta, 0, LARGEST_BETA) for name, beta in (("beta1", beta1), ("beta2", beta2)))
    rate = check_number("learning_rate", learning_rate, 0, 1e6)
    settings = [
        check_number("gradient_scale", gradient_scale, -1e30, 1e30),
        1 - beta1,
        1 - beta2,
        rate / (1 - beta1**step),
        1 / math.sqrt(1 - beta2**step),
        check_number("epsilon", epsilon, 1e-30, 1e6),
        rate * check_number("weight_decay", weight_decay, 0, 1e6),
        check_flag("zero_gradient", zero_gradient),
    ]
    threads, native = check_threads(threads), ffi.new("struct fd_adamw *", settings)
    with written(arrays, {}):
        lib.fd_adamw_step(n, native, pointer(value), pointer(gradient), pointer(first), pointer(second), threads)
    return value
