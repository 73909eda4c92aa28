"""The k largest logits of each row, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.distill.top_k import top_k as reference_top_k
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

WIDTHS = [1, 15, 16, 17, 33, 1000]


def cases(draw: Choices) -> Case:
    """Logits, mostly rounded, so that there are ties; some of them banned, and some zeros with a sign."""
    rows, vocab, random = draw.integer(0, 3), draw.choice(WIDTHS), draw.generator()
    z = random.standard_normal((rows, vocab)) * draw.choice([1, 30])
    z = np.round(z, draw.choice([0, 0, 7])).astype(np.float32)
    z[:, 1:][random.random((rows, vocab - 1)) < draw.choice([0, 0.7, 1])] = -np.inf
    return {"logits": z, "k": draw.integer(1, vocab)}


def check(case: Case, function: Callable[..., Any] = kernels.top_k) -> Any:
    """Equal tokens and logits."""
    got = function(**case)
    for number, (found, want) in enumerate(zip(got, reference_top_k(**case), strict=True)):
        same(f"output {number}", found, want, want.dtype)
    return got
