"""Of norms: csrc/kernels/train/norm_gradient.c."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.ops.adjoints.linear import SHARED
from fastdistill.ops.kind import VECTOR, OpKind, Reverse, same_width


def norm_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """y = w (x - m) / s + b of the mean m and root mean square s, or m = 0 and no bias: see the gradients of each kind of norm."""
    (x,), (weight, *biases) = op.inputs, op.weights
    heads, of_x = op.constants.get("heads", 1), {name: op.constants[name] for name in OF_NORMS if name in op.constants}
    if reverse.wants(x):
        reverse.give(x, reverse.op(f"{op.kind}_gradient", x, gradient, weights=(weight,), **op.constants))
    if reverse.trains(weight):
        terms = reverse.op(f"{op.kind}_weight_terms", x, gradient, **of_x)
        reverse.op("column_sums", terms, weights=(weight,), heads=heads)
    for bias in filter(reverse.trains, biases):
        reverse.op("column_sums", gradient, weights=(bias,), heads=heads)


def rms_norm_gradient(
    x: np.ndarray, dy: np.ndarray, weight: np.ndarray, *, epsilon: float, head_dim: int = 0, heads: int = 1
) -> np.ndarray:
    """With n = x / s and g = dy weight: dx = (g - n mean (g n)) / s, of the row or of each head, in float64."""
    n, s = normed(x, epsilon, head_dim, centred=False)
    g = (dy * np.tile(weight.astype(np.float64), heads)).reshape(n.shape)
    return ((g - n * (g * n).mean(axis=2, keepdims=True)) / s).reshape(x.shape)


def layer_norm_gradient(
    x: np.ndarray, dy: np.ndarray, weight: np.ndarray, *, epsilon: float, head_dim: int = 0, heads: int = 1
) -> np.ndarray:
    """With n = (x - m) / s and g = dy weight: dx = (g - mean g - n mean (g n)) / s, of the row or of each head, in float64."""
    n, s = normed(x, epsilon, head_dim, centred=True)
    g = (dy * np.tile(weight.astype(np.float64), heads)).reshape(n.shape)
    return ((g - g.mean(axis=2, keepdims=True) - n * (g * n).mean(axis=2, keepdims=True)) / s).reshape(x.shape)


def rms_norm_weight_terms(x: np.ndarray, dy: np.ndarray, *, epsilon: float, head_dim: int = 0) -> np.ndarray:
    """dy x / s, whose sum over rows is the gradient by the weight, in float64."""
    return dy * normed(x, epsilon, head_dim, centred=False)[0].reshape(x.shape)


def layer_norm_weight_terms(x: np.ndarray, dy: np.ndarray, *, epsilon: float, head_dim: int = 0) -> np.ndarray:
    """dy (x - m) / s, whose sum over rows is the gradient by the weight, in float64."""
    return dy * normed(x, epsilon, head_dim, centred=True)[0].reshape(x.shape)


def normed(x: np.ndarray, epsilon: float, head_dim: int, *, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """(x - m) / s and s, float64 (rows, heads, numbers) and (rows, heads, 1)."""
    size = head_dim or x.shape[1]
    heads = x.reshape(len(x), x.shape[1] // size, size).astype(np.float64)
    if centred:
        heads = heads - heads.mean(axis=2, keepdims=True)
    s = np.sqrt((heads * heads).mean(axis=2, keepdims=True) + np.float64(np.float32(epsilon)))
    return heads / s, s


def normed_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """That of the inputs, whole heads; a weight is of each of its numbers, or of each of a head's."""
    width, heads = same_width(widths, (), constants), constants.get("heads", 1)
    head_dim = constants.get("head_dim") or width
    assert width % head_dim == 0 and heads in (1, width // head_dim), (widths, constants)
    assert all(shape == (width // heads,) for shape in shapes), (widths, shapes, constants)
    return width


OF_NORMS = {"epsilon": "scalar", "head_dim": "head_dim"}


def _kind(reference: Callable[..., np.ndarray], meaning: str, weights: tuple[str, ...] = ()) -> OpKind:
    return OpKind(
        name=reference.__name__,
        meaning=meaning,
        reference=reference,
        inputs=(2,),
        weights=weights,
        constants=OF_NORMS | SHARED if weights else OF_NORMS,
        width=normed_width,
    )


KINDS = (
    _kind(rms_norm_gradient, "the gradient by x of its rms_norm, of that by the norm's value, y", (VECTOR,)),
    _kind(layer_norm_gradient, "the same of layer_norm", (VECTOR,)),
    _kind(
        rms_norm_weight_terms, "y x / sqrt(mean x^2 + epsilon): each row's part of the gradient by rms_norm's weight"
    ),
    _kind(layer_norm_weight_terms, "the same of x - mean x, of layer_norm's"),
)
