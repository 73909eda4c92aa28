"""Probabilities of rows of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.transport.softmax import softmax as reference_softmax
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near, same

WIDTHS = [1, 2, 15, 16, 17, 33, 1000]  # lanes, one under, at and over, and one long row


def cases(draw: Choices) -> Case:
    """Rows in 0 to 2 dimensions, of both dtypes, some of them with bans; and a temperature."""
    random = draw.generator()
    shape = (*(draw.integer(0, 3) for _ in range(draw.integer(0, 2))), draw.choice(WIDTHS))
    z = random.standard_normal(shape) * draw.choice([0.0, 1.0, 30.0]) + draw.choice([0.0, -300.0])
    z[..., 1:][random.random(z[..., 1:].shape) < draw.choice([0, 0.6])] = -np.inf
    return {
        "logits": z.astype(draw.choice([np.float32, np.float64])),
        "temperature": draw.choice([0.25, 1.0, 2.0, 3.1]),
    }


def check(case: Case, function: Callable[..., Any] = kernels.softmax) -> Any:
    """The exponent rounds twice, relative; exp is within 2 ulp; the quotient rounds, the sum before it.

    What float32 has as less than e^-86.98 is 0.
    """
    z = case["logits"]
    got, want = function(**case), reference_softmax(**case)
    finite = np.where(np.isfinite(z), z, 0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        below = (finite.max(axis=-1, keepdims=True) - finite) / case["temperature"]
    exponent = np.where(np.isfinite(z), below, 0)
    unit, least = np.finfo(z.dtype).eps, 2e-38 if z.dtype == np.float32 else 1e-300
    near("p", got, want, (6 + 2 * exponent) * unit * want + least, z.dtype)
    same("p of what is banned", got[z == -np.inf], np.zeros((z == -np.inf).sum()))
    return got
