"""A mixture of experts (Shazeer et al. 2017; Fedus et al. 2022): csrc/kernels/forward/experts.c.

A router's linear gives a logit an expert; `route` picks top_k of them and their shares; `experts_up` and `experts_down` are the
feed-forward networks, of which a row goes through those that it has picked. So the shape of every value is known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.activation import ACTIVATIONS
from fastdistill.ops.adjoints.experts import choices, experts_down_adjoint, experts_up_adjoint, padded, route_adjoint
from fastdistill.ops.kind import MATRIX, OpKind, StepKind
from fastdistill.ops.linear import linear

MOST_EXPERTS = 1024


def route(logits: np.ndarray, *, experts: int, top_k: int, renormalised: bool) -> np.ndarray:
    """Numbers of the top_k most likely experts, ascending, then their shares: each padded (-1, 0) to a multiple of 16, float64.

    Shares are the softmax over all experts, in float64; `renormalised`: over those that are picked. Ties: the lowest number.
    """
    half = padded(top_k, 16)
    e = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    routes = np.zeros((len(logits), 2 * half))
    routes[:, :half] = -1
    picked = np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :top_k], axis=1)
    shares = np.take_along_axis(e, picked, axis=1)
    routes[:, :top_k] = picked
    routes[:, half : half + top_k] = shares / (shares if renormalised else e).sum(axis=1, keepdims=True)
    return routes


def experts_up(
    x: np.ndarray, routes: np.ndarray, *matrices: Tensor, activation: str, top_k: int, experts: int
) -> np.ndarray:
    """activation(gate x) * up x of each expert that the row has picked, in their order, each padded to a multiple of 32.

    matrices are gate and up (inner, width) of each expert: (rows, top_k * padded inner).
    """
    inner = matrices[0].shape[0]
    made = np.zeros((len(x), top_k, padded(inner, 32)))
    for expert, rows, ranks in choices(routes, top_k):
        gate, up = (linear(x[rows], matrix) for matrix in matrices[2 * expert : 2 * expert + 2])
        made[rows, ranks, :inner] = ACTIVATIONS[activation](gate) * up
    return made.reshape(len(x), -1)


def experts_down(x: np.ndarray, routes: np.ndarray, *matrices: Tensor, top_k: int, experts: int) -> np.ndarray:
    """The sum of share * (down x) over the experts that the row has picked; x as `experts_up` makes it, a matrix (width, inner) each."""
    width, inner = matrices[0].shape
    made, parts = np.zeros((len(x), width)), x.reshape(len(x), top_k, -1)[:, :, :inner]
    for expert, rows, ranks in choices(routes, top_k):
        shares = routes[rows, padded(top_k, 16) + ranks]
        made[rows] += shares[:, None] * linear(parts[rows, ranks], matrices[expert])
    return made


def _route_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    assert widths == [constants["experts"]] and 1 <= constants["top_k"] <= widths[0] <= MOST_EXPERTS, (
        widths,
        constants,
    )
    return 2 * padded(constants["top_k"], 16)


def _up_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    """A result for each expert that a row goes through, padded to a multiple of 32."""
    inner = shapes[0][0]
    assert [*shapes] == [(inner, widths[0])] * 2 * constants["experts"], (widths, shapes)
    return int(constants["top_k"]) * padded(inner, 32)


def _down_width(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    width, inner = shapes[0]
    assert [*shapes] == [(width, inner)] * constants["experts"], shapes
    assert widths[0] == constants["top_k"] * padded(inner, 32), (widths, constants)
    return width


_CONSTANTS = {"experts": "experts", "top_k": "top_k"}

KINDS = (
    OpKind(
        name="route",
        meaning="the top_k experts of largest logit x, ascending, and their shares: their softmax over all, or, renormalised, among them",
        reference=route,
        constants=_CONSTANTS | {"renormalised": "scalar"},
        width=_route_width,
        adjoint=route_adjoint,
    ),
    OpKind(
        name="experts_up",
        meaning="activation(w x) * (v x) of each expert that the row's route y names, w and v being its weights",
        reference=experts_up,
        inputs=(2,),
        weights=(MATRIX, MATRIX),
        repeated=True,
        constants=_CONSTANTS | {"activation": "activation"},
        width=_up_width,
        steps=(StepKind("experts_up"),),
        adjoint=experts_up_adjoint,
    ),
    OpKind(
        name="experts_down",
        meaning="the sum of share * (w x) over the experts that the row's route y names",
        reference=experts_down,
        inputs=(2,),
        weights=(MATRIX,),
        repeated=True,
        constants=_CONSTANTS,
        width=_down_width,
        steps=(StepKind("experts_down"),),
        adjoint=experts_down_adjoint,
    ),
)
