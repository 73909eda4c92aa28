"""The law that `sample` draws from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.sample.probabilities import probabilities as reference_probabilities
from fastdistill.reference.sample.sample import processed
from fastdistill.testing.cases.sample import sample
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

# e^x is 2 ulp, 2^-22 of it, off, and so is their sum; the sum and the quotient round once each.  Below 2^-125 lies what exp
# gives as 0.
RELATIVE, ABSOLUTE = 2 * 2.0**-22 + 2 * 2.0**-24 + 2.0**-40, 2.0**-125


def cases(draw: Choices) -> Case:
    """Those of `sample`, without positions."""
    case = sample.cases(draw)
    case.pop("positions")
    return case


def check(case: Case, function: Callable[..., Any] = kernels.probabilities) -> Any:
    """Rows whose thresholds are not too close to call."""
    got, want = function(**case), reference_probabilities(**case)
    z = case["logits"]
    for row in range(len(z)):
        slack = processed(z, case["sampler"], case.get("seen"), case.get("allowed"), row)[2]
        if slack > sample.close_threshold(z.shape[1]):
            near(f"row {row}", got[row], want[row], RELATIVE * want[row] + ABSOLUTE, np.float32)
    return got
