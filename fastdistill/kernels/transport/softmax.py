"""Probabilities of rows of logits, and what a gradient by them is by the logits."""

from __future__ import annotations

import math

import numpy as np

from fastdistill.arguments import REAL, check_array, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import bits, check_status, const, lib, pointer, refuse_rows, written
from fastdistill.kernels.threads import check_threads


def softmax(logits: np.ndarray, temperature: float = 1.0, *, threads: int | None = 1) -> np.ndarray:
    """The softmax of logits / temperature, row by row.

    Parameters
    ----------
    logits : float32 or float64 (..., vocab)
        vocab >= 1: rows in any dimensions before it; -inf is a ban
    temperature : float, default 1.0
        above 0
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    np.ndarray (..., vocab)
        of that dtype

    Raises
    ------
    ArgumentError
    NotFiniteError
        when a row holds NaN or +inf, or nothing but -inf
    """
    *leading, vocab = check_array("logits", logits, REAL, (..., "vocab"))
    if vocab == 0:
        raise ArgumentError(f"logits must have at least one column, got shape {logits.shape}")
    temperature = check_number("temperature", temperature, 1e-30, 1e30)
    out = np.empty(logits.shape, logits.dtype)
    status = lib.fd_softmax(
        bits(logits), math.prod(leading), vocab, temperature, const(logits), pointer(out), check_threads(threads)
    )
    if status == lib.FD_NOT_FINITE:
        refuse_rows("softmax", logits)
    check_status("softmax", status)
    return out


def softmax_gradient(
    probabilities: np.ndarray,
    gradient: np.ndarray,
    temperature: float = 1.0,
    *,
    weight: float = 1.0,
    threads: int | None = 1,
) -> np.ndarray:
    """Turn, in place, a gradient by probabilities into the gradient by the logits that they are the softmax of.

    Parameters
    ----------
    probabilities : float32 or float64 (..., vocab)
        from `softmax`
    gradient : np.ndarray (..., vocab)
        of that dtype, writable, apart from probabilities; overwritten and returned: weight / temperature p (gradient -
        <p, gradient>)
    temperature : float, default 1.0
        above 0
    weight : float, default 1.0
        within 1e30 of 0
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Raises
    ------
    ArgumentError
    BusyError
        where another call is writing the gradient
    """
    *leading, vocab = check_array("probabilities", probabilities, REAL, (..., "vocab"))
    check_array("gradient", gradient, probabilities.dtype.type, probabilities.shape, like="probabilities", written=True)
    scale = check_number("weight", weight, -1e30, 1e30) / check_number("temperature", temperature, 1e-30, 1e30)
    threads = check_threads(threads)
    with written({"gradient": gradient}, {"probabilities": probabilities}):
        lib.fd_softmax_gradient(
            bits(probabilities), math.prod(leading), vocab, scale, const(probabilities), pointer(gradient), threads
        )
    return gradient
