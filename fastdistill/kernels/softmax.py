"""Probabilities of rows of logits, and what a gradient by them is by the logits."""

from __future__ import annotations

import math

import numpy as np

from fastdistill.arguments import check_array, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import check_status, lib, pointer
from fastdistill.kernels.points import bits, check_real
from fastdistill.kernels.threads import check_threads


def softmax(logits: np.ndarray, temperature: float = 1.0, *, threads: int | None = 1) -> np.ndarray:
    """The softmax of logits / temperature, row by row.

    logits       float32 or float64 (..., vocab), vocab >= 1: rows in any dimensions before it; -inf is a ban
    temperature  above 0
    returns      (..., vocab), of that dtype
    raises       ArgumentError; NotFiniteError when a row holds NaN or +inf, or nothing but -inf
    """
    *leading, vocab = check_real("logits", logits, 1)
    if vocab == 0:
        raise ArgumentError(f"logits must have at least one column, got shape {logits.shape}")
    temperature = check_number("temperature", temperature, 1e-30, 1e30)
    out = np.empty_like(logits)
    status = lib.fd_softmax(
        bits(logits), math.prod(leading), vocab, temperature, pointer(logits), pointer(out), check_threads(threads)
    )
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

    probabilities  float32 or float64 (..., vocab), from `softmax`
    gradient       (..., vocab), of that dtype; overwritten and returned: weight / temperature p (gradient - <p, gradient>)
    """
    *leading, vocab = check_real("probabilities", probabilities, 1)
    check_array("gradient", gradient, probabilities.dtype.type, probabilities.shape)
    scale = weight / check_number("temperature", temperature, 1e-30, 1e30)
    lib.fd_softmax_gradient(
        bits(probabilities), math.prod(leading), vocab, scale, pointer(probabilities), pointer(gradient), check_threads(threads)
    )  # fmt: skip
    return gradient
