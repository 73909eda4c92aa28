"""One step of gradient descent, with momentum or without, over arrays of every length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.train.sgd_step import sgd_step as reference_sgd_step
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import holds, near, same

LENGTHS = [0, 1, 15, 16, 17, 33, 1000, 16384 + 17]  # lanes, one under, at and over, and more than a task
ARRAYS = "value", "gradient", "velocity"
UNIT = 2.0**-24


def cases(draw: Choices) -> Case:
    """Value, gradient, and velocity or none; and settings."""
    random = draw.generator()
    value, gradient, velocity = random.standard_normal((3, draw.choice(LENGTHS)), np.float32)
    momentum = draw.choice([None, 0.0, 0.9, 1.0])
    return {
        "value": value,
        "gradient": gradient,
        "velocity": None if momentum is None else velocity,
        "learning_rate": draw.choice([0.0, 1e-4, 0.5]),
        "momentum": momentum or 0.0,
        "nesterov": momentum is not None and draw.boolean(),
        "weight_decay": draw.choice([0.0, 0.1]),
        "decoupled": draw.boolean(),
        "gradient_scale": draw.choice([1.0, -0.3]),
        "zero_gradient": draw.boolean(),
    }


def stepped(case: Case, function: Callable[..., Any] = kernels.sgd_step) -> list[np.ndarray | None]:
    """Copies of the arrays, after the step."""
    arrays = {name: None if case[name] is None else case[name].copy() for name in ARRAYS}
    holds(function(**{**case, **arrays}) is arrays["value"], "the result is not the array `value`")
    return list(arrays.values())


def check(case: Case, function: Callable[..., Any] = kernels.sgd_step) -> Any:
    """Scale, decay and momentum, and what they are multiplied with, round once each; so do the sums: 6 of terms of this size."""
    got, want = stepped(case, function), reference_sgd_step(**case)
    same("gradient", got[1], want[1])
    value, g, velocity = (np.abs(0 if case[name] is None else case[name].astype(np.float64)) for name in ARRAYS)
    size = g * abs(case["gradient_scale"]) + case["weight_decay"] * value + case["momentum"] * velocity
    if case["velocity"] is not None:
        near("velocity", got[2], want[2], 6 * UNIT * size + 2.0**-100)
        size += case["momentum"] * size
    change = case["learning_rate"] * (size + case["weight_decay"] * value)
    near("value", got[0], want[0], 10 * UNIT * change + UNIT * np.abs(want[0]) + 1e-30)
    return got
