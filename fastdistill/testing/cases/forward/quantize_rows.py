"""Activations as int8 blocks of 32, of any magnitude."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.forward.quantize_rows import quantize_rows as reference_quantize_rows
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

WIDTHS = [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 576]  # lane and block edges, and a real width


def cases(draw: Choices) -> Case:
    """Rows of any scale, subnormal too; halves, which tie; mostly zeros."""
    shape = draw.integer(1, 4), draw.choice(WIDTHS)
    random = draw.generator()
    x = random.standard_normal(shape) * 10.0 ** draw.integer(-44, 37)
    x = np.round(x * draw.choice([1.0, 63.5])) if draw.boolean() else x  # halves: ties to even
    return {"x": np.where(random.random(shape) < draw.choice([0.0, 0.9]), 0, x).clip(-3e38, 3e38).astype(np.float32)}


def check(case: Case, function: Callable[..., Any] = kernels.quantize_rows) -> Any:
    """Equal in every bit but the sign of 0."""
    got = function(**case)
    for number, (found, want) in enumerate(zip(got, reference_quantize_rows(**case), strict=True)):
        same(f"output {number}", found, want)
    return got
