"""What rounding may do to the gradients of attention."""

from __future__ import annotations

import numpy as np

from tests.runtime.gradient_bounds import EPS


def largest(*arrays) -> list[float]:
    return [float(np.abs(array.astype(np.float64)).max()) for array in arrays]


def score_error(constants, q, k, positions) -> float:
    """head_dim products summed in as many steps, then scaled; tanh within 2^-22, a quotient and a product; a rounding of a sum."""
    dim, (queries, keys) = constants["head_dim"], largest(q, k)
    found = (dim + 2) * EPS * queries * keys * dim * constants["scale"] + 6 * EPS * constants.get("softcap", 0)
    return found + 2 * EPS * np.abs(constants.get("slopes", 0)).max() * np.ptp(positions)


def sums(op, inputs, want, judge, request):
    # Of each key one exponential within 2 ulp, its argument rounded once, and a fused multiply-add: the sum is off by 6 roundings a key;
    # a logarithm within 2 ulp, and the sum with the peak.  y dy: a term's worth a step of 16, and a fold.
    c = op.constants
    rows, keys = len(want), int(request.key_counts.max())
    logs = np.abs(want[:, : c["heads"]]) + np.log(keys + 1)
    logs = score_error(c, *inputs[:2], request.positions) + (6 * keys + 16) * EPS + 4 * EPS * logs
    products = np.abs(inputs[2].astype(np.float64) * inputs[3]).reshape(rows, c["heads"], -1)
    return np.concatenate([logs, (products.shape[2] / 16 + 6) * EPS * products.sum(axis=2)], axis=1)


def gradients(op, inputs, want, judge, request):
    # A weight is off by its score's error, its argument's rounding (up to 87, times a weight of its exponential: less than 1), and exp's
    # 2 ulp, relative to 1; what it is multiplied by, v dy less its mean, by head_dim + 1 roundings, the cap's slope by 16; then as many
    # terms are summed as there are keys, or rows that see one.
    q, k, v, dy, sums = inputs
    c, (queries, keys, values, outer) = op.constants, largest(q, k, v, dy)
    dim, scale = c["head_dim"], c["scale"]
    change = dim * values * outer + largest(sums[:, c["heads"] :])[0]
    error = score_error(c, q, k, request.positions)
    terms = int(request.key_counts.max())
    by_queries = scale * keys * change * (error + (terms + dim + 40) * EPS)
    by_keys = len(want) * scale * queries * change * (error + (len(want) + dim + 40) * EPS)
    by_values = len(want) * outer * (error + (len(want) + 40) * EPS)
    return np.repeat([[by_queries, by_keys, by_values]], want.shape[1] // 3, axis=1) + 0 * want


BOUNDS = {
    "attention_sums": sums,
    "attention_gradient": gradients,
}
