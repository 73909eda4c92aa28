"""Rows times weights of every format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.forward.linear import linear as reference_linear
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

FORMATS = ["f32", "f16", "bf16", "q8", "q4"]
SIZES = [1, 15, 16, 17, 31, 32, 33, 65, 130]  # lanes, blocks, tasks of 64 outputs
ROWS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 17]  # register tiles


def cases(draw: Choices) -> Case:
    """x and a weight in any format; codes take every value, -128 included."""
    rows, outputs, inputs = draw.choice(ROWS), draw.choice(SIZES), draw.choice(SIZES)
    random = draw.generator()
    format = draw.choice(FORMATS)
    blocks = -(-inputs // 32)
    x = random.standard_normal((rows, inputs)).astype(np.float32)
    if draw.boolean():
        x = np.sign(x) * np.float32(1.0)  # codes of +-127: the largest sums there can be
    data: np.ndarray
    scale = minimum = None
    if format in ("q8", "q4"):
        low, high, width, dtype = (-128, 128, 32, np.int8) if format == "q8" else (0, 256, 16, np.uint8)
        data = random.integers(low, high, (outputs, blocks * width)).astype(dtype)
        if draw.boolean():
            data[:] = low if format == "q8" else 255
        scale = (random.standard_normal((outputs, blocks)) * 0.01).astype(np.float16)
        minimum = random.standard_normal((outputs, blocks)).astype(np.float16) if format == "q4" else None
    else:
        data = random.standard_normal((outputs, inputs)).astype(np.float32)
        if format == "f16":
            data = data.astype(np.float16)
        if format == "bf16":
            data = (data.view(np.uint32) >> 16).astype(np.uint16)
    bias = random.standard_normal(outputs).astype(np.float32) if draw.boolean() else None
    return {"x": x, "format": format, "data": data, "scale": scale, "minimum": minimum, "bias": bias}


def check(case: Case, function: Callable[..., Any] = kernels.linear) -> Any:
    """One rounding a term and a few beside; q8 and q4 round per block: the product of the scales, the sum, the minimum."""
    got, inputs = function(**case), case["x"].shape[1]
    roundings = inputs + 2 if case["format"] in ("f32", "f16", "bf16") else 4 * -(-inputs // 32) + 4
    near("y", got, reference_linear(**case), roundings * 2.0**-24 * _magnitudes(**case), np.float32)
    return got


def _magnitudes(
    x: np.ndarray,
    format: str,
    data: np.ndarray,
    scale: np.ndarray | None,
    minimum: np.ndarray | None,
    bias: np.ndarray | None,
) -> np.ndarray:
    """The sum of the absolute values of all that is added up."""
    absolute = [None if part is None else np.abs(part) for part in (scale, minimum, bias)]
    if format == "bf16":
        data = data & 0x7FFF
    elif format == "q8":  # |-128| needs more than int8; a float16 copy holds every code
        data = np.abs(data.astype(np.float16))
    elif format != "q4":
        data = np.abs(data)
    return reference_linear(np.abs(x), format, data, *absolute)
