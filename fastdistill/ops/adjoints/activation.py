"""Of the functions between the linears of a feed-forward network: csrc/kernels/train/activation_gradient.c."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erfc, pi, sqrt
from typing import Any

import numpy as np

from fastdistill.ops.kind import OpKind, Reverse


def activation_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """dx = dy activation'(x)."""
    (x,) = op.inputs
    reverse.give(x, reverse.op("activation_gradient", x, gradient, **op.constants))


def gated_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """y = activation(gate) up: one factor's is the other one times dy."""
    gate, up = op.inputs
    if reverse.wants(gate):
        reverse.give(gate, reverse.op("gated_gate_gradient", gate, up, gradient, **op.constants))
    if reverse.wants(up):
        reverse.give(up, reverse.op("gated", gate, gradient, **op.constants))


def sigmoid_mul_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """y = x sigmoid(share): a share is one number a row, so its gradient is a sum over the row."""
    x, share = op.inputs
    if reverse.wants(x):
        reverse.give(x, reverse.op("sigmoid_mul", gradient, share))
    if reverse.wants(share):
        reverse.give(share, reverse.op("sigmoid_mul_share_gradient", x, share, gradient))


def softcap_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """y = c tanh(x / c): dx = dy (1 - (y / c)^2)."""
    (x,) = op.inputs
    reverse.give(x, reverse.op("softcap_gradient", x, gradient, **op.constants))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def silu_slope(x: np.ndarray) -> np.ndarray:
    """s (1 + x (1 - s)) of s = sigmoid(x), in float64; 1 - s is sigmoid(-x)."""
    x = x.astype(np.float64)
    return _sigmoid(x) * (1 + x * _sigmoid(-x))


def gelu_slope(x: np.ndarray) -> np.ndarray:
    """Phi(x) + x phi(x), the normal distribution function and its density, in float64."""
    x = x.astype(np.float64)
    below = np.array([erfc(-t / sqrt(2)) / 2 for t in x.flat]).reshape(x.shape)
    return below + x * np.exp(-x * x / 2) / sqrt(2 * pi)


def gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    """Of x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3): s + x s (1 - s) 2 u', in float64."""
    x = x.astype(np.float64)
    u, slope = sqrt(2 / pi) * (x + 0.044715 * x**3), sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)
    return _sigmoid(2 * u) * (1 + x * _sigmoid(-2 * u) * 2 * slope)


def relu_slope(x: np.ndarray) -> np.ndarray:
    """1 where x > 0, 0 elsewhere, at 0 too."""
    return np.where(x > 0, 1, np.maximum(x, 0))  # NaN stays


def tanh_slope(x: np.ndarray) -> np.ndarray:
    """1 - tanh^2 x, in float64."""
    return np.cosh(np.minimum(np.abs(x.astype(np.float64)), 300)) ** -2.0


SLOPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": silu_slope,
    "gelu": gelu_slope,
    "gelu_tanh": gelu_tanh_slope,
    "relu": relu_slope,
    "tanh": tanh_slope,
}


def activation_gradient(x: np.ndarray, dy: np.ndarray, *, activation: str) -> np.ndarray:
    """dy activation'(x), one of SLOPES, in float64."""
    return dy * SLOPES[activation](x)


def gated_gate_gradient(gate: np.ndarray, up: np.ndarray, dy: np.ndarray, *, activation: str) -> np.ndarray:
    """dy up activation'(gate), in float64."""
    return dy * (up * SLOPES[activation](gate))


def sigmoid_mul_share_gradient(x: np.ndarray, share: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """s (1 - s) sum (x dy) of s = sigmoid(share): (rows, 1), in float64."""
    share = share.astype(np.float64)
    return _sigmoid(share) * _sigmoid(-share) * (x.astype(np.float64) * dy).sum(axis=1, keepdims=True)


def softcap_gradient(x: np.ndarray, dy: np.ndarray, *, softcap: float) -> np.ndarray:
    """dy (1 - tanh^2 (x / softcap)), in float64."""
    return dy * tanh_slope(x.astype(np.float64) / softcap)


def _share_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    assert widths[0] == widths[2] and widths[1] == 1, widths
    return 1


KINDS = (
    OpKind(
        name="activation_gradient",
        meaning="activation'(x) * y",
        reference=activation_gradient,
        inputs=(2,),
        constants={"activation": "activation"},
    ),
    OpKind(
        name="gated_gate_gradient",
        meaning="activation'(x) * y * z",
        reference=gated_gate_gradient,
        inputs=(3,),
        constants={"activation": "activation"},
    ),
    OpKind(
        name="sigmoid_mul_share_gradient",
        meaning="sigmoid'(y) * the sum of x * z over the row, y one number a row",
        reference=sigmoid_mul_share_gradient,
        inputs=(3,),
        width=_share_width,
    ),
    OpKind(
        name="softcap_gradient",
        meaning="y (1 - tanh(x / softcap)^2)",
        reference=softcap_gradient,
        inputs=(2,),
        constants={"softcap": "softcap"},
    ),
)
