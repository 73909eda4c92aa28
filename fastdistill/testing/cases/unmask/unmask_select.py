"""Which masked positions a step commits, under every rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels import RowStatistics, Unmasked, UnmaskRule
from fastdistill.reference.unmask.unmask_select import unmask_select as reference_unmask_select
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near, same

# Nothing, one, one under, at and over a register, and one long row.
LENGTHS = [0, 1, 2, 15, 16, 17, 33, 300]
LEADING = [(), (), (0,), (1,), (3,), (2, 3)]
DTYPES = {"chosen": np.bool_, "count": np.int32, "ranks": np.int32, "confidence": np.float32}


def cases(draw: Choices, **fixed: Any) -> Case:
    """Few different values, so that many tie; NaN, infinities, zeros of both signs.  `fixed` are settings of the rule."""
    shape, random = (*draw.choice(LEADING), draw.choice(LENGTHS)), draw.generator()
    rare = draw.choice([0, 0.1, 1])

    def floats(*odd: float) -> np.ndarray:
        values = np.round(random.exponential(1, shape), draw.choice([0, 1, 8])).astype(np.float32)
        where = random.random(shape) < rare * 0.3
        values[where] = random.choice(np.array(odd, np.float32), shape)[where]
        return values

    top = floats(np.nan, -np.inf, -0.0)
    statistics = RowStatistics(
        random.integers(0, 9, shape).astype(np.int32), top, top - floats(0.0, np.inf), top + floats(0.0), floats(0.0, -0.0, np.nan),
        -floats(0.0, np.inf, np.nan),
    )  # fmt: skip
    masked = random.random(shape) < draw.choice([0, 0.1, 0.8, 1])
    rule = any_rule(draw, **fixed)
    case: Case = {"statistics": statistics, "masked": masked, "rule": rule}
    if rule.score == "given":
        signs = random.choice(np.array([-1, 1], np.float32), shape)
        case["scores"] = floats(np.nan, np.inf, -np.inf, -0.0) * signs
    if rule.score == "confidence" and draw.boolean():
        case["log_probs"] = -floats(np.nan, np.inf, 0.0)
    if draw.boolean():
        case["bias"] = -floats(np.inf, np.nan)
    if draw.boolean():
        case["also"] = random.random(shape) < 0.3
    if draw.boolean():
        each = np.array(random.integers(0, draw.choice([1, 5, 400]), shape[:-1]), np.int32)
        case["quota"] = draw.choice([0, 1, 4, 1000, each])
    return case


def any_rule(draw: Choices, **fixed: Any) -> UnmaskRule:
    """A score, and each setting at its ends, between them, or not there."""
    score = draw.choice(["confidence", "margin", "entropy", "given"])
    levels = {
        "confidence": [0, 0.3, 0.9, 1],
        "margin": [0, 0.2, 1],
        "entropy": [0, 0.5, 2.0, np.inf],
        "given": [-np.inf, -1, 0.3, np.inf],
    }
    least = draw.choice([0, 1, 1, 3])
    settings = {
        "score": score,
        "threshold": draw.choice([None, *levels[score]]),
        "factor": draw.choice([None, 0, 0.5, 1.0, 3.0, np.inf]) if score == "confidence" else None,
        "budget": draw.choice([None, None, 0, 1.5, 30.0, np.inf]),
        "least": least,
        "most": draw.choice([None, max(least, 1), 4, 1000]),
        "explore": draw.choice([0, 0, 1, 4]),
    }
    return UnmaskRule(**(settings | fixed))


def check(case: Case, function: Callable[..., Any] = kernels.unmask_select) -> Any:
    """Equal fields.  A margin's exponentials may differ in the last bits, and then ranks: what follows from them may not.

    Two exponentials of at most 1 within 2 ulp, 2^-22 each; their difference, and a bias beside it, round here and there.
    """
    got = function(**case)
    if case["rule"].score == "margin":
        rest = {name: case[name] for name in ("also", "quota") if name in case}
        rule, (*_, confidence) = replace(case["rule"], score="given"), got
        want = reference_unmask_select(case["statistics"], case["masked"], rule, scores=confidence, **rest)
        own = reference_unmask_select(**case)[3]
        bias = np.abs(case.get("bias", np.zeros_like(own)))
        near("confidence", confidence, own, 10 * 2.0**-24 + 2.0**-23 * np.where(np.isfinite(bias), bias, 0))
    else:
        want = reference_unmask_select(**case)
    for name, found, meant in zip(Unmasked._fields, got, want, strict=True):
        same(name, found, meant, DTYPES[name])
    return got
