"""What `kernels.unrolled_sinkhorn` means."""

from __future__ import annotations

import numpy as np


def unrolled_sinkhorn(cost, epsilon, iterations):
    """The plan after so many divisions of rows, then columns, by their sums; its cost; that cost's gradient.  In float64.

    The gradient goes back through each division P_new = P / sums: g becomes (g - sum of g P_new) / sums.
    """
    cost = cost.astype(np.float64)
    kernel = np.exp(-cost / epsilon)
    plan, divisions = kernel, []
    for axis in (-1, -2) * iterations:
        sums = plan.sum(axis=axis, keepdims=True)
        plan = plan / sums
        divisions.append((axis, sums, plan))
    value = (plan * cost).sum(axis=(-1, -2))
    adjoint = cost
    for axis, sums, divided in reversed(divisions):
        adjoint = (adjoint - (adjoint * divided).sum(axis=axis, keepdims=True)) / sums
    return value, plan, plan - adjoint * kernel / epsilon
