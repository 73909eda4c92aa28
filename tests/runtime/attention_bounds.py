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


def gradients(op, inputs, want, judge, request):
    # The logarithm of a sum: of each key one exponential within 2 ulp, its argument rounded once, and a fused multiply-add: 6 roundings a
    # key; a logarithm within 2 ulp, and the sum with the peak.  A weight is off by its score's error and by that, by its argument's
    # rounding (up to 87, times a weight of its exponential: less than 1), and by exp's 2 ulp, relative to 1; what it is multiplied by,
    # v dy less y dy, by head_dim + 1 roundings and by a term's worth a step of 16 and a fold, the cap's slope by 16; then as many terms
    # are summed as there are keys, or rows that see one.
    q, k, v, y, dy = inputs
    c, (queries, keys, values, result, outer) = op.constants, largest(q, k, v, y, dy)
    dim, scale, terms = c["head_dim"], c["scale"], int(request.key_counts.max())
    change = dim * (values + result) * outer
    score = queries * keys * dim * scale + np.abs(c.get("slopes", 0)).max() * np.ptp(request.positions)
    error = 2 * score_error(c, q, k, request.positions) + (6 * terms + 16 + 4 * (score + np.log(terms + 1))) * EPS
    by_queries = scale * keys * change * (error + (terms + dim + 46) * EPS)
    by_keys = len(want) * scale * queries * change * (error + (len(want) + dim + 46) * EPS)
    by_values = len(want) * outer * (error + (len(want) + 40) * EPS)
    return np.repeat([[by_queries, by_keys, by_values]], want.shape[1] // 3, axis=1) + 0 * want


BOUNDS = {"attention_gradient": gradients}
