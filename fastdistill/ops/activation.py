"""The functions between the linears of a feed-forward network, by name: csrc/kernels/forward/activation.c."""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, sqrt

import numpy as np

from fastdistill.ops.adjoints.activation import (
    activation_adjoint,
    gated_adjoint,
    sigmoid_mul_adjoint,
    softcap_adjoint,
)
from fastdistill.ops.kind import OpKind


def silu(x: np.ndarray) -> np.ndarray:
    """x / (1 + e^-x), in float64 (Elfwing et al. 2018)."""
    x = x.astype(np.float64)
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), Phi the normal distribution function, in float64 (Hendrycks and Gimpel 2016)."""
    x = x.astype(np.float64)
    return x * np.array([erfc(-t / sqrt(2)) / 2 for t in x.flat]).reshape(x.shape)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), in float64 (their approximation)."""
    x = x.astype(np.float64)
    return x / 2 * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def relu(x: np.ndarray) -> np.ndarray:
    """x, but 0 where it is less (Nair and Hinton 2010)."""
    return np.maximum(x, 0)


def tanh(x: np.ndarray) -> np.ndarray:
    """tanh(x), in float64."""
    return np.tanh(x.astype(np.float64))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "tanh": tanh,
}


def activation(x: np.ndarray, *, activation: str) -> np.ndarray:
    """One of ACTIVATIONS, element by element."""
    return ACTIVATIONS[activation](x)


def gated(gate: np.ndarray, up: np.ndarray, *, activation: str) -> np.ndarray:
    """activation(gate) * up (Shazeer 2020)."""
    return ACTIVATIONS[activation](gate) * up


def sigmoid_mul(x: np.ndarray, share: np.ndarray) -> np.ndarray:
    """x (rows, width) / (1 + e^-share), share (rows, 1), in float64."""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-share.astype(np.float64)))


def softcap(x: np.ndarray, *, softcap: float) -> np.ndarray:
    """softcap tanh(x / softcap), in float64 (Gemma 2)."""
    return softcap * np.tanh(x.astype(np.float64) / softcap)


def _of_the_first(widths, shapes, constants) -> int:  # type: ignore[no-untyped-def]
    assert widths[1] == 1, widths
    return int(widths[0])


_CONSTANTS = {"activation": "activation"}

KINDS = (
    OpKind(
        name="activation",
        meaning="activation(x): silu, gelu, gelu by tanh, relu, or tanh",
        reference=activation,
        constants=_CONSTANTS,
        epilogue=("FD_ACTIVATED", 1),
        adjoint=activation_adjoint,
    ),
    OpKind(
        name="gated",
        meaning="activation(x) * y",
        reference=gated,
        inputs=(2,),
        constants=_CONSTANTS,
        epilogue=("FD_GATED", 2),
        adjoint=gated_adjoint,
    ),
    OpKind(
        name="sigmoid_mul",
        meaning="x * sigmoid(y), y one number a row",
        reference=sigmoid_mul,
        inputs=(2,),
        width=_of_the_first,
        adjoint=sigmoid_mul_adjoint,
    ),
    OpKind(
        name="softcap",
        meaning="softcap * tanh(x / softcap)",
        reference=softcap,
        constants={"softcap": "softcap"},
        adjoint=softcap_adjoint,
    ),
)
