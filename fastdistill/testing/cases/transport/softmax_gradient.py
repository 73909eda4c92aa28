"""A gradient's way back from probabilities to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.transport.softmax import softmax_gradient as reference_softmax_gradient
from fastdistill.testing.cases.transport import softmax
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near


def cases(draw: Choices) -> Case:
    """Laws of the cases of `softmax`, beside a gradient."""
    case, random = softmax.cases(draw), draw.generator()
    p = kernels.softmax(**case)
    gradient = random.standard_normal(p.shape).astype(p.dtype)
    return {
        "probabilities": p,
        "gradient": gradient,
        "temperature": case["temperature"],
        "weight": draw.choice([1.0, 3.0]),
    }


def check(case: Case, function: Callable[..., Any] = kernels.softmax_gradient) -> Any:
    """Sum, difference, product and factor: four roundings of terms up to 2 |g|."""
    p, g = case["probabilities"], case["gradient"]
    got, want = function(**{**case, "gradient": g.copy()}), reference_softmax_gradient(**case)
    size = 2 * np.abs(g).max(initial=0) * case["weight"] / case["temperature"]
    near("gradient", got, want, 4 * np.finfo(p.dtype).eps * p * size + 1e-300, p.dtype)
    return got
