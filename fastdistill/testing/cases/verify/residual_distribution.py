"""What is left of one law when another is taken away."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.verify.residual_distribution import residual_distribution as reference_residual_distribution
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near

WIDTHS = [1, 2, 15, 16, 17, 33, 255, 256, 257, 511, 512, 513, 4099]  # lanes, chunks, and one long row


def cases(draw: Choices) -> Case:
    """p, q (vocab,): spread out or peaked, with zeros, with entries that are equal, of any magnitude; and a weight."""
    vocab, random = draw.choice(WIDTHS), draw.generator()
    p, q = np.exp(random.standard_normal((2, vocab)) * draw.choice([0.1, 3.0, 20.0]))
    same = random.random(vocab) < draw.choice([0.0, 0.5, 1.0])
    q[same] = p[same]
    for row in (p, q):
        row[random.random(vocab) < draw.choice([0.0, 0.5])] = draw.choice([0.0, -0.0])
        row /= max(row.sum(), 1e-300)
    low, high = draw.choice([(1.0, 1.0), (1e-30, 1.0), (1.0, 1e6)])
    return {"p": p.astype(np.float32), "q": q.astype(np.float32), "a": draw.number(low, high)}


def check(case: Case, function: Callable[..., Any] = kernels.residual_distribution) -> Any:
    """In float64 a p is exact and a p - q rounds by 2^-53 of at most a p; the kernel rounds the exact value once, to 2^-24 of it, or
    to half of the smallest float, 2^-149.  The mass is that of r: at most V sums of doubles, all positive."""
    got, (want, want_mass) = function(**case), reference_residual_distribution(**case)
    r, mass = got
    near("r", r, want, 2.0**-23 * want + 2.0**-149)
    near("r", r, want, 2.0**-24 * want + 2.0**-53 * np.float32(case["a"]) * case["p"] + 2.0**-150)
    exact = math.fsum(np.asarray(r, np.float64))
    near("mass of r", mass, exact, len(r) * 2.0**-53 * exact)
    near("mass", mass, want_mass, 2.0**-23 * want_mass + len(r) * 2.0**-149)
    return got
