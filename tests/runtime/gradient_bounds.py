"""What rounding may do to ops of gradients, by kind: roundings on the way to a result, times the size of what is rounded."""

from __future__ import annotations

import numpy as np

EPS = 2.0**-24  # of one rounding


def rounded(times):
    """So many roundings of the result itself."""
    return lambda op, inputs, want, judge, request: times * EPS * np.abs(want)


def products_summed(op, inputs, want, judge, request):
    # One rounding a term; a matrix of blocks is a product and a sum before that, of |scale code| + |minimum|.
    allowed = 0.0
    matrices = [judge.weights.tensors[name] for name in op.weights]
    roundings = sum(matrix.shape[0] for matrix in matrices) + 4
    for dy, matrix in zip(inputs, matrices, strict=True):
        w = np.abs(matrix.to_float32())
        if matrix.minimum is not None:
            w = w + 2 * np.repeat(np.abs(matrix.minimum.astype(np.float64)), 32, axis=1)[:, : matrix.shape[1]]
        allowed = allowed + np.abs(dy) @ w
    return roundings * EPS * allowed


# Of a sum over rows that begins at 0: a rounding a row, each at most of what has been summed.


def rows_summed(op, inputs, want, judge, request):
    terms = inputs[0].reshape(-1, len(want))  # of all heads that share a weight
    return (len(terms) + 2) * EPS * np.abs(terms).sum(axis=0)


def outer_products_summed(op, inputs, want, judge, request):
    x, dy = map(np.abs, inputs)
    return (len(x) + 2) * EPS * dy.T @ x


def rows_of_a_table(numbers):
    def summed(op, inputs, want, judge, request):
        allowed = np.zeros(want.shape)
        np.add.at(allowed, numbers(request), np.abs(inputs[0]))
        return (len(inputs[0]) + 2) * EPS * allowed

    return summed


def norm_gradient(op, inputs, want, judge, request):
    # Of (g - mean g - n mean (g n)) / s: g is rounded once; n, at most `size`, is off as of `layer_normed`; sums take a rounding for
    # each 16 terms, and a few to fold.
    x, dy = (a.astype(np.float64) for a in inputs)
    weight = judge.weights.tensors[op.weights[0]].to_float32()
    g = np.abs(dy * np.tile(weight, op.constants.get("heads", 1)))
    g, n, root, size, roundings = _norm_parts(op, x, g)
    mean, along = g.mean(axis=2, keepdims=True), (g * n).mean(axis=2, keepdims=True)
    allowed = roundings * EPS / root * (g + mean + size * along + n * (mean * size + along))
    return allowed.reshape(want.shape)


def norm_weight_terms(op, inputs, want, *_):
    dy, _, _, size, roundings = _norm_parts(op, inputs[0].astype(np.float64), np.abs(inputs[1]))
    return (roundings * EPS * size * dy).reshape(want.shape)


def _norm_parts(op, x, beside):
    """By heads: `beside`, |x - mean| / root, the root, the largest that takes part in that, and how many roundings."""
    shape = len(x), -1, op.constants.get("head_dim") or x.shape[1]
    x, beside = x.reshape(shape), beside.reshape(shape)
    mean = x.mean(axis=2, keepdims=True) if op.kind.startswith("layer") else 0
    root = np.sqrt(((x - mean) ** 2).mean(axis=2, keepdims=True) + op.constants["epsilon"])
    size = np.abs(x).max(axis=2, keepdims=True) / root + 1
    return beside, np.abs(x - mean) / root, root, size, 2 * (x.shape[2] / 16 + 16)


def sloped(op, inputs, *_):
    # s + x s (1 - s) c of a share s, as of `activated`, where c x is at most 35 before 1 - s is 0; then products.
    x, *others = (np.abs(a) for a in inputs)
    return 24 * EPS * (1 + x) * np.prod(others, axis=0)


def experts_summed(op, inputs, want, judge, request):
    """As `products_summed`, of the largest number of a row and the matrix of the largest sum along outputs."""
    matrices = [judge.weights.tensors[name] for name in op.weights]
    sizes = [np.abs(matrix.to_float32()).sum(axis=0).max() for matrix in matrices]
    if matrices[0].minimum is not None:
        sizes = [
            size + 2 * np.abs(m.minimum.astype(np.float64)).sum(axis=0).max()
            for size, m in zip(sizes, matrices, strict=True)
        ]
    parts = op.constants["top_k"] if op.kind == "experts_up_gradient" else 1
    x = np.abs(inputs[0]).max(axis=1, keepdims=True)
    return (parts * matrices[0].shape[0] + 4) * EPS * parts * x * max(sizes) + 0 * np.abs(want)


def experts_rows_summed(op, inputs, want, judge, request):
    """As `outer_products_summed`, of all rows and choices, whichever expert they are of: not less than of one."""
    parts = [
        np.abs(a).reshape(len(a), -1, -(-n // 32) * 32)[:, :, :n] if a.shape[1] != n else np.abs(a)[:, None]
        for a, n in zip(inputs, want.shape[::-1], strict=False)
    ]
    return (len(inputs[0]) + 2) * EPS * parts[1].sum(axis=1).T @ parts[0].sum(axis=1)


def shares_by(op, inputs, want, *_):
    products = np.abs(inputs[0] * inputs[1].astype(np.float64)).reshape(len(want), op.constants["top_k"], -1)
    allowed, half = np.zeros(want.shape), want.shape[1] // 2
    allowed[:, half : half + products.shape[1]] = (products.shape[2] / 16 + 6) * EPS * products.sum(axis=2)
    return allowed


def logits_by(op, inputs, want, *_):
    # p (g - mean): p as of `routed`; the mean sums top_k products.
    logits, routes, gradient = inputs
    experts, top_k = logits.shape[1], op.constants["top_k"]
    half = routes.shape[1] // 2
    shares, g = (np.abs(a[:, half : half + top_k]) for a in (routes, gradient))
    mean = (shares * g).sum(axis=1, keepdims=True)
    size = np.abs(want) + mean + (shares * g).max(axis=1, keepdims=True)
    return (2 * np.abs(logits).max() + experts / 16 + top_k + 16) * EPS * size


GRADIENT_BOUNDS = {
    "given": rounded(0),
    "spread": rounded(0),
    "embedding_gradient": rows_of_a_table(lambda request: request.tokens),
    "position_embedding_gradient": rows_of_a_table(lambda request: request.positions),
    "linear_input_gradient": products_summed,
    "linear_weight_gradient": outer_products_summed,
    "column_sums": rows_summed,
    "rms_norm_gradient": norm_gradient,
    "layer_norm_gradient": norm_gradient,
    "rms_norm_weight_terms": norm_weight_terms,
    "layer_norm_weight_terms": norm_weight_terms,
    "activation_gradient": sloped,
    "gated_gate_gradient": sloped,
    "sigmoid_mul_share_gradient": lambda op, inputs, *_: (
        (inputs[0].shape[1] / 16 + 12) * EPS * np.abs(inputs[0] * inputs[2]).sum(axis=1, keepdims=True)
    ),
    "softcap_gradient": lambda op, inputs, *_: (
        12 * EPS * np.abs(inputs[1])
    ),  # 2 t times tanh's 4 and a quotient's; 1 - t^2, a product
    "experts_up_gradient": experts_summed,
    "experts_down_gradient": experts_summed,
    "experts_weight_gradient": experts_rows_summed,
    "experts_scale": rounded(1),
    "experts_share_gradient": shares_by,
    "route_gradient": logits_by,
}
