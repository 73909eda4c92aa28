"""One step of gradient descent with momentum, in one pass over memory."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import check_array, check_flag, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import ffi, lib, pointer, written
from fastdistill.kernels.threads import check_threads


def sgd_step(
    value: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray | None = None,
    *,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    gradient_scale: float = 1.0,
    zero_gradient: bool = False,
    threads: int | None = 1,
) -> np.ndarray:
    """One step of gradient descent, in place.

    Parameters
    ----------
    value : float32 (n,)
        writable; n >= 0: what is optimised, in any order; overwritten and returned
    gradient : float32 (n,)
        writable
    velocity : float32 (n,) | None, default None
        writable: what momentum keeps, zeros before the first step; overwritten.  None: there is no momentum
    learning_rate : float
        0 to 1e6
    momentum : float, default 0.0
        0 to 1: velocity = momentum velocity + gradient
    nesterov : bool, default False
        whether the step goes along gradient + momentum velocity, not along velocity
    weight_decay : float, default 0.0
        0 to 1e6: so much of the value is added to the gradient
    decoupled : bool, default False
        whether learning_rate times it is taken of the value instead, apart from the gradient
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
    check_array("gradient", gradient, np.float32, (n,), written=True)
    if velocity is not None:
        check_array("velocity", velocity, np.float32, (n,), written=True)
    kept = check_number("momentum", momentum, 0, 1)
    if velocity is None and (kept or nesterov):
        raise ArgumentError("velocity must be given where there is momentum")
    rate, decay = (
        check_number("learning_rate", learning_rate, 0, 1e6),
        check_number("weight_decay", weight_decay, 0, 1e6),
    )
    apart = check_flag("decoupled", decoupled)
    settings = [
        check_number("gradient_scale", gradient_scale, -1e30, 1e30),
        kept,
        rate,
        0.0 if apart else decay,
        rate * decay if apart else 0.0,
        check_flag("nesterov", nesterov),
        check_flag("zero_gradient", zero_gradient),
    ]
    threads, native = check_threads(threads), ffi.new("struct fd_sgd *", settings)
    with written({"value": value, "gradient": gradient, "velocity": velocity}, {}):
        lib.fd_sgd_step(n, native, pointer(value), pointer(gradient), pointer(velocity), threads)
    return value
