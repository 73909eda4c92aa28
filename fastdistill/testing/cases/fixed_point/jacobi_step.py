"""The next Jacobi iterate, from drawn tokens, statistics or logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.kernels import JacobiStep, RowStatistics, Sampler
from fastdistill.reference.fixed_point.jacobi_step import jacobi_step as reference_jacobi_step
from fastdistill.reference.sample.sample import sample as reference_sample
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import same

# The seed alone, one under, at and over one and two blocks of 16, and one long row.
LENGTHS = [1, 2, 15, 16, 17, 31, 32, 33, 300]
LEADING = [(), (0,), (1,), (3,), (2, 3)]
DTYPES = [np.int32, np.int32, np.bool_, np.int32, np.bool_]
SAMPLERS = [
    Sampler(temperature=1.0, seed=3),
    Sampler(temperature=0.7, top_k=3, seed=2**63, sequence=9),
    Sampler(temperature=1.4, top_k=6, top_p=0.9, min_p=0.05, logit_bias={0: 0.5, 1: -np.inf}, seed=1),
]


def cases(draw: Choices, targets: Sequence[str] = ("tokens", "statistics", "logits", "drawn")) -> Case:
    """Any int32, where what is drawn is the next guess everywhere, nearly everywhere, here and there, or nowhere; logits with ties."""
    target = draw.choice(targets)
    if target in ("logits", "drawn"):
        shape, vocab, random = draw.choice([(1,), (17,), (2, 5)]), draw.choice([2, 7, 40]), draw.generator()
        logits = np.round(random.standard_normal((*shape, vocab)) * 2, 1).astype(np.float32)  # rounded: there are ties
        case: Case = {"iterate": random.integers(0, vocab, shape).astype(np.int32), "target": logits}
        positions = random.integers(0, 10000, shape).astype(np.int32)
        return case | ({"sampler": draw.choice(SAMPLERS), "positions": positions} if target == "drawn" else {})
    shape, random = (*draw.choice(LEADING), draw.choice(LENGTHS)), draw.generator()
    iterate = random.integers(-(2**31), 2**31, shape).astype(np.int32)
    differs = random.random(shape) < draw.choice([0, 0.01, 0.1, 1])
    flips = np.where(differs, 1 << random.integers(0, 32, shape), 0).astype(np.uint32).view(np.int32)
    tokens = np.roll(iterate, -1, axis=-1) ^ flips
    if target == "tokens":
        return {"iterate": iterate, "target": tokens}
    statistics = RowStatistics.empty(shape)
    for field in statistics[1:]:  # nothing but the tokens is read
        field[...] = np.nan
    statistics.argmax[...] = tokens
    return {"iterate": iterate, "target": statistics}


def check(case: Case, function: Callable[..., Any] = kernels.jacobi_step) -> Any:
    """Equal fields; of what is drawn, as far as the two best keys are further apart than their doubt, and thresholds than theirs."""
    got = function(**case)
    if case.get("sampler") is None or _clear(**case):
        same_steps(got, reference_jacobi_step(**case))
    return got


def same_steps(got: Any, want: Any) -> None:
    """Two steps, field by field."""
    for name, found, meant, dtype in zip(JacobiStep._fields, got, want, DTYPES, strict=True):
        same(name, found, meant, dtype)


def _clear(iterate: np.ndarray, target: np.ndarray, sampler: Sampler, positions: np.ndarray) -> bool:
    """Whether no key is closer to another than 2^-15, and no threshold than 2^-20: see the cases of `sample`."""
    drawn = reference_sample(target.reshape(-1, target.shape[-1]), sampler, positions.reshape(-1))
    best = np.sort(drawn.keys, axis=1)[:, -2:]
    return bool((best[:, 1] - best[:, 0] > 2.0**-15).all() and (drawn.slack > 2.0**-20).all())
