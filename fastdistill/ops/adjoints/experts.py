"""Of a mixture of experts: csrc/kernels/train/experts_gradient.c.

What lies by choice is a row's parts, one for each expert that it has picked, in their order, each padded to a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastdistill.checkpoint.tensor import Tensor
from fastdistill.ops.adjoints.linear import as_numbers, sum_width
from fastdistill.ops.kind import MATRIX, MATRIX_SUM, TABLE, OpKind, Reverse, StepKind
from fastdistill.reference.forward.linear import linear


def route_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """By the logits, of that by the shares; which experts are picked has none."""
    (logits,) = op.inputs
    reverse.give(logits, reverse.op("route_gradient", logits, op.output, gradient, **op.constants))


def experts_up_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """a = f(gate x) (up x): both products are made again; then as `gated`, and as a linear by the expert of each choice."""
    x, routes = op.inputs
    of_all = {name: op.constants[name] for name in _CONSTANTS}
    gates, ups = op.weights[::2], op.weights[1::2]
    gate, up = (reverse.op("experts_linear", x, routes, weights=names, **of_all) for names in (gates, ups))
    how = {"activation": op.constants["activation"]}
    by_gate = reverse.op("gated_gate_gradient", gate, up, gradient, **how)
    by_up = reverse.op("gated", gate, gradient, **how)
    for dy, names in ((by_gate, gates), (by_up, ups)):
        if reverse.wants(x):
            reverse.give(x, reverse.op("experts_up_gradient", dy, routes, weights=names, **of_all))
        _give_matrices(reverse, x, dy, routes, names, of_all)


def experts_down_adjoint(reverse: Reverse, op: Any, gradient: int) -> None:
    """y = sum s (W a) over choices: da = s W^T dy, ds = a (W^T dy), dW = dy (s a)^T."""
    (x, routes), of_all = op.inputs, op.constants
    back = reverse.op("experts_down_gradient", gradient, routes, weights=op.weights, **of_all)
    if reverse.wants(x):
        reverse.give(x, reverse.op("experts_scale", back, routes, top_k=of_all["top_k"]))
    if reverse.wants(routes):
        reverse.give(routes, reverse.op("experts_share_gradient", x, back, top_k=of_all["top_k"]))
    scaled = reverse.op("experts_scale", x, routes, top_k=of_all["top_k"])
    _give_matrices(reverse, scaled, gradient, routes, op.weights, of_all)


def _give_matrices(
    reverse: Reverse, x: int, dy: int, routes: int, names: Sequence[str], of_all: Mapping[str, int]
) -> None:
    numbers = [number for number, name in enumerate(names) if reverse.trains(name)]
    if numbers:
        weights = [names[number] for number in numbers]
        how = {**of_all, "numbers": np.array(numbers, np.float32)}
        reverse.op("experts_weight_gradient", x, dy, routes, weights=weights, **how)


def choices(routes: np.ndarray, top_k: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each expert, ascending, the rows that have picked it, and where it stands among theirs."""
    picked = routes[:, :top_k].astype(int)
    for expert in np.unique(picked):
        rows, ranks = np.nonzero(picked == expert)
        yield int(expert), rows, ranks


def padded(n: int, unit: int) -> int:
    """n rounded up to a multiple of `unit`."""
    return -(-n // unit) * unit


def experts_linear(x: np.ndarray, routes: np.ndarray, *matrices: Tensor, top_k: int, experts: int) -> np.ndarray:
    """W x by choice, W (outputs, width) of each expert."""
    outputs = matrices[0].shape[0]
    made = np.zeros((len(x), top_k, padded(outputs, 32)))
    for expert, rows, ranks in choices(routes, top_k):
        w = matrices[expert]
        made[rows, ranks, :outputs] = linear(x[rows], w.format, w.data, w.scale, w.minimum)
    return made.reshape(len(x), -1)


def experts_up_gradient(dy: np.ndarray, routes: np.ndarray, *matrices: Tensor, top_k: int, experts: int) -> np.ndarray:
    """The sum of W^T dy over the row's choices, dy by choice, in float64."""
    outputs, width = matrices[0].shape
    made, parts = np.zeros((len(dy), width)), dy.reshape(len(dy), top_k, -1)[:, :, :outputs].astype(np.float64)
    for expert, rows, ranks in choices(routes, top_k):
        made[rows] += parts[rows, ranks] @ as_numbers(matrices[expert])
    return made


def experts_down_gradient(
    dy: np.ndarray, routes: np.ndarray, *matrices: Tensor, top_k: int, experts: int
) -> np.ndarray:
    """W^T dy by choice, in float64."""
    inner = matrices[0].shape[1]
    made = np.zeros((len(dy), top_k, padded(inner, 32)))
    for expert, rows, ranks in choices(routes, top_k):
        made[rows, ranks, :inner] = dy[rows].astype(np.float64) @ as_numbers(matrices[expert])
    return made.reshape(len(dy), -1)


def experts_weight_gradient(
    x: np.ndarray,
    dy: np.ndarray,
    routes: np.ndarray,
    *gradients: np.ndarray,
    top_k: int,
    experts: int,
    numbers: np.ndarray,
) -> None:
    """gradient (outputs, inputs) += dy^T x of the rows that go to its expert, one of `numbers`; x or dy by choice, in float64."""
    outputs, inputs = gradients[0].shape
    x_parts, dy_parts = (
        np.broadcast_to(a[:, None], (len(a), top_k, n)) if a.shape[1] == n else a.reshape(len(a), top_k, -1)[:, :, :n]
        for a, n in ((x, inputs), (dy, outputs))
    )
    of_expert = dict(zip(numbers.astype(int).tolist(), gradients, strict=True))
    for expert, rows, ranks in choices(routes, top_k):
        if expert in of_expert:
            of_expert[expert] += dy_parts[rows, ranks].T.astype(np.float64) @ x_parts[rows, ranks].astype(np.float64)


def experts_scale(x: np.ndarray, routes: np.ndarray, *, top_k: int) -> np.ndarray:
    """x by choice times the choice's share, in float64."""
    shares = routes[:, padded(top_k, 16) :][:, :top_k].astype(np.float64)
    return (x.reshape(len(x), top_k, -1) * shares[:, :, None]).reshape(x.shape)


def experts_share_gradient(x: np.ndarray, y: np.ndarray, *, top_k: int) -> np.ndarray:
    """The sum of x y of each choice where routes have its share, zeros elsewhere, in float64."""
    made = np.zeros((len(x), 2 * padded(top_k, 16)))
    products = (x.astype(np.float64) * y).reshape(len(x), top_k, -1)
    made[:, padded(top_k, 16) :][:, :top_k] = products.sum(axis=2)
    return made


def route_gradient(
    logits: np.ndarray, routes: np.ndarray, gradient: np.ndarray, *, experts: int, top_k: int, renormalised: bool
) -> np.ndarray:
    """p (g - sum p g): p the shares of all experts, or of those picked, g their gradient, 0 where not picked; in float64."""
    picked = routes[:, :top_k].astype(int)
    e = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    among, g = np.zeros(e.shape), np.zeros(e.shape)
    np.put_along_axis(among, picked, 1, axis=1)
    np.put_along_axis(g, picked, gradient[:, padded(top_k, 16) :][:, :top_k], axis=1)
    p = e * among if renormalised else e
    p /= p.sum(axis=1, keepdims=True)
    return p * (g - (p * g).sum(axis=1, keepdims=True))


def _by_choice(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    outputs, inputs = shapes[0]
    assert [*shapes] == [(outputs, inputs)] * constants["experts"] and widths[0] == inputs, (widths, shapes)
    return int(constants["top_k"]) * padded(outputs, 32)


def _summed(widths: Sequence[int], shapes: Sequence[tuple[int, ...]], constants: Mapping[str, Any]) -> int:
    outputs, inputs = shapes[0]
    assert widths[0] == constants["top_k"] * padded(outputs, 32), (widths, shapes)
    return inputs


_CONSTANTS = {"experts": "experts", "top_k": "top_k"}

KINDS = (
    OpKind(
        name="experts_linear",
        meaning="w x of each expert that the row's route y names, by choice",
        reference=experts_linear,
        inputs=(2,),
        weights=(MATRIX,),
        repeated=True,
        constants=_CONSTANTS,
        width=_by_choice,
        steps=(StepKind("experts_linear"),),
    ),
    OpKind(
        name="experts_up_gradient",
        meaning="the sum of x w, x by choice, over the experts that the row's route y names",
        reference=experts_up_gradient,
        inputs=(2,),
        weights=(TABLE,),
        repeated=True,
        constants=_CONSTANTS,
        width=_summed,
        steps=(StepKind("experts_up_gradient"),),
    ),
    OpKind(
        name="experts_down_gradient",
        meaning="x w of each expert that the row's route y names, by choice",
        reference=experts_down_gradient,
        inputs=(2,),
        weights=(TABLE,),
        repeated=True,
        constants=_CONSTANTS,
        width=lambda widths, shapes, constants: int(constants["top_k"]) * padded(shapes[0][1], 32),
        steps=(StepKind("experts_down_gradient"),),
    ),
    OpKind(
        name="experts_weight_gradient",
        meaning="adds the sum of y x^T over the rows whose route z names expert numbers[i] to the gradient of weight i; x or y by choice",
        reference=experts_weight_gradient,
        inputs=(3,),
        weights=(MATRIX_SUM,),
        repeated=True,
        constants=_CONSTANTS | {"numbers": "vectors"},
        width=sum_width,
        steps=(StepKind("experts_weight_gradient", writes=False),),
    ),
    OpKind(
        name="experts_scale",
        meaning="x, by choice, times the shares of the row's route y",
        reference=experts_scale,
        inputs=(2,),
        constants={"top_k": "top_k"},
        width=lambda widths, shapes, constants: widths[0],
    ),
    OpKind(
        name="experts_share_gradient",
        meaning="the sums of x y, both by choice, where a route has shares; 0 elsewhere",
        reference=experts_share_gradient,
        inputs=(2,),
        constants={"top_k": "top_k"},
        width=lambda widths, shapes, constants: 2 * padded(constants["top_k"], 16),
    ),
    OpKind(
        name="route_gradient",
        meaning="the gradient by the logits x that route y is made of, of that by its shares, z",
        reference=route_gradient,
        inputs=(3,),
        constants=_CONSTANTS | {"renormalised": "scalar"},
        width=lambda widths, shapes, constants: widths[0],
    ),
)
