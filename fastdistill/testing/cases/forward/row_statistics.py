"""Statistics of rows of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.forward.row_statistics import row_statistics as reference_row_statistics
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near, same

WIDTHS = [1, 2, 15, 16, 17, 255, 256, 257, 511, 513, 4099]  # lane and chunk edges, and one long row


def cases(draw: Choices) -> Case:
    """Rows of every width that matters, in 0 to 3 dimensions: spread out, all alike, with ties, with bans."""
    leading, vocab = [draw.integer(1, 3) for _ in range(draw.integer(0, 3))], draw.choice(WIDTHS)
    random = draw.generator()
    z = (random.standard_normal((*leading, vocab)) * draw.choice([0.0, 0.1, 3.0, 60.0])).astype(np.float32)
    if draw.boolean():
        z = np.round(z)
    if draw.boolean():
        z[random.random(z.shape) < 0.7] = -np.inf
        z[..., random.integers(vocab)] = 1.5
    return {"logits": z + np.float32(draw.choice([0.0, -200.0, 1e4]))}


def check(case: Case, function: Callable[..., Any] = kernels.row_statistics) -> Any:
    """Tokens and logits exactly; exp is within 2 ulp, each term of the sums too, and 16-lane sums of V/16 terms: V/16 + 12 roundings."""
    got, want = function(**case), reference_row_statistics(**case)
    argmax, top, second, log_sum_exp, entropy, log_prob = got
    vocab = case["logits"].shape[-1]
    roundings = (vocab / 16 + 12) * 2.0**-24
    same("argmax", argmax, want[0])
    same("top", top, want[1].astype(np.float32))
    same("second", second, want[2].astype(np.float32))
    largest = np.abs(want[3]).max()
    near("log_sum_exp - top", log_sum_exp - top, want[3] - want[1], roundings + 2.0**-23 * largest)
    near("entropy", entropy, want[4], roundings * (4 + 2 * np.log(vocab) + 1))
    # R to as many roundings, relative to itself; below 1.25 it stands alone, above, S0 = 1 + R is at most 5 times it.
    near("log_prob", log_prob, want[5], (5 * roundings + 8 * 2.0**-24) * np.abs(want[5]) + 1e-37)
    return got
