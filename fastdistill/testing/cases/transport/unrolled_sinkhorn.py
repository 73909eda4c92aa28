"""What a plan costs after some Sinkhorn iterations, and the gradient through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.transport.unrolled_sinkhorn import unrolled_sinkhorn as reference_unrolled_sinkhorn
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

SIZES = [1, 2, 15, 16, 17, 33, 64]  # lanes, and blocks of 16 rows and of 32 columns


def cases(draw: Choices) -> Case:
    """Costs within [0, 2], some on a grid; epsilons at which the plain iteration of the reference neither under- nor overflows."""
    random = draw.generator()
    leading: tuple[int, ...] = draw.choice([(), (1,), (3,), (2, 2)])
    cost = random.uniform(0, 2, (*leading, draw.choice(SIZES), draw.choice(SIZES)))
    if draw.boolean():
        cost = np.round(cost * 2) / 2
    dtype = draw.choice([np.float32, np.float64])
    epsilon, iterations = draw.choice([0.02, 0.1, 1.0, 50.0]), draw.choice([1, 2, 7, 20])
    return {"cost": cost.astype(dtype), "epsilon": epsilon, "iterations": iterations}


def check(case: Case, function: Callable[..., Any] = kernels.unrolled_sinkhorn) -> Any:
    """Of log P, |C| / epsilon <= 100 is rounded, at each of 2 n divisions: 2^-53 * 100 * 40 relative, and as much of what a sum
    over a side takes away; the gradient divides by epsilon.  Float32 rounds the results once."""
    got, want = function(**case), reference_unrolled_sinkhorn(**case)
    value, plan, gradient = got
    dtype, epsilon = case["cost"].dtype, case["epsilon"]
    unit, last = 2.0**-53 * (2 / epsilon + 64) * (4 * case["iterations"] + 8), np.finfo(dtype).eps
    near("value", value, want[0], unit * np.abs(want[0]), np.float64)
    near("plan", plan, want[1], (unit + last) * want[1] + np.finfo(dtype).smallest_subnormal, dtype)
    near("gradient", gradient, want[2], last * np.abs(want[2]) + 4 * unit * (1 + 2 / epsilon) + last, dtype)
    return got
