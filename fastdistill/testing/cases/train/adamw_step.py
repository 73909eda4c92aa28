"""One step of AdamW over arrays of every length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.train.adamw_step import adamw_step as reference_adamw_step
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, near, same

LENGTHS = [0, 1, 15, 16, 17, 33, 1000, 16384 + 17]  # lanes, one under, at and over, and more than a task
ARRAYS = "value", "gradient", "first", "second"
UNIT = 2.0**-24


def cases(draw: Choices) -> Case:
    """The four arrays, gradients of many sizes and some of them 0, and settings."""
    random = draw.generator()
    value, gradient, first, second = random.standard_normal((4, draw.choice(LENGTHS)), np.float32)
    gradient *= draw.choice([1e-4, 1.0, 30.0])
    gradient[::3] = 0
    if draw.boolean():
        first[:], second[:] = 0, 0
    return {
        "value": value,
        "gradient": gradient,
        "first": first,
        "second": np.square(second),
        "step": draw.choice([1, 2, 1000, 10**9]),
        "learning_rate": draw.choice([0.0, 1e-5, 0.5]),
        "beta1": draw.choice([0.5, 0.9, 0.99]),
        "beta2": draw.choice([0.5, 0.95, 0.999, 0.99999]),
        "epsilon": draw.choice([1e-8, 1e-3]),
        "weight_decay": draw.choice([0.0, 0.1]),
        "gradient_scale": draw.choice([1.0, 0.3]),
        "zero_gradient": draw.boolean(),
    }


def stepped(case: Case, function: Callable[..., Any] = kernels.adamw_step) -> list[np.ndarray]:
    """Copies of the four arrays, after the step."""
    arrays = {name: case[name].copy() for name in ARRAYS}
    holds(function(**{**case, **arrays}) is arrays["value"], "the result is not the array `value`")
    return list(arrays.values())


def check(case: Case, function: Callable[..., Any] = kernels.adamw_step) -> Any:
    """The four arrays, each as far as its own roundings may take it."""
    got, want = stepped(case, function), reference_adamw_step(**case)
    same("gradient", got[1], want[1])
    value, gradient, first, _ = (np.abs(case[name].astype(np.float64)) for name in ARRAYS)
    g = gradient * abs(case["gradient_scale"])
    # Two roundings of g and one each of the difference, the rate and the sum.
    first_error = 4 * UNIT * (g + first)
    near("first", got[2], want[2], first_error + 2.0**-100)
    # Four of g g, its product's, and these three; what is below 2^-126 is 0.
    near("second", got[3], want[3], 8 * UNIT * want[3] + 2.0**-125)
    # Those of first; of the denominator half of those of second, and of root, product, epsilon and sum four; quotient and step size.
    rate = case["learning_rate"] / (1 - case["beta1"] ** case["step"])
    below = np.sqrt(want[3] / (1 - case["beta2"] ** case["step"])) + case["epsilon"]
    decay = case["learning_rate"] * case["weight_decay"] * value
    error = rate / below * (first_error + 12 * UNIT * np.abs(want[2])) + 4 * UNIT * decay + UNIT * np.abs(want[0])
    near("value", got[0], want[0], 1.01 * error + 1e-20)
    return got
