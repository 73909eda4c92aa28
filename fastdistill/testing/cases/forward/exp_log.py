"""exp and log of both dtypes, within the units in the last place that the reference allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdistill import kernels
from fastdistill.reference.forward.exp_log import exp_log as reference_exp_log
from fastdistill.testing.choices import Case, Choices
from fastdistill.testing.compare import near, same

LENGTHS = [1, 0, 15, 16, 17, 33, 1000]  # lanes, one under, at and over, and one long row
EXPONENTS = {np.dtype(np.float32): (-86.9, 88.7), np.dtype(np.float64): (-708, 708)}  # whose e^x is normal and finite
NORMAL = {np.dtype(np.float32): (1.2e-38, 3e38), np.dtype(np.float64): (2.3e-308, 1.7e308)}
ULPS = {np.dtype(np.float32): (2, 2), np.dtype(np.float64): (1, 2)}  # of exp and of log: csrc/vec_math.h


def cases(draw: Choices) -> Case:
    """Exponents, numbers of any magnitude, numbers near 1, whose logarithms cancel; and what lies beyond."""
    dtype = np.dtype(draw.choice([np.float32, np.float64]))
    kind, n = draw.choice(["exponents", "magnitudes", "near 1", "beyond"]), draw.choice(LENGTHS)
    random = draw.generator()
    if kind == "exponents":
        x = random.uniform(*EXPONENTS[dtype], n)
    elif kind == "magnitudes":
        least, most = NORMAL[dtype]
        x = np.exp(random.uniform(np.log(least), np.log(most), n)).clip(least, most)
    elif kind == "near 1":
        x = random.uniform(0.5, 2, n)
    else:
        x = random.choice([-np.inf, -1e30, -800, -87, 0, 1e30, np.inf, np.nan], n)
    return {"x": x.astype(dtype)}


def check(case: Case, function: Callable[..., Any] = kernels.exp_log) -> Any:
    """Within some ulp where results are normal; e^x exact where it is 0, the most there is, or NaN."""
    x = case["x"]
    got, want = function(**case), reference_exp_log(**case)
    lowest, highest = EXPONENTS[x.dtype]
    # The reference of doubles is off itself where long doubles have no more digits.
    own = float(np.finfo(want[0].dtype).eps > np.finfo(x.dtype).eps / 4)
    with np.errstate(invalid="ignore", over="ignore"):
        inside = {"exp": (x >= lowest) & (x <= highest), "log": (x >= NORMAL[x.dtype][0]) & (x <= NORMAL[x.dtype][1])}
        for name, found, meant, ulps in zip(inside, got, want, ULPS[x.dtype], strict=True):
            unit = np.spacing(np.abs(meant).astype(x.dtype)).astype(meant.dtype)
            near(name, found, meant, np.where(inside[name], (ulps + own) * unit, np.inf), x.dtype)
        edge = ~inside["exp"] & ((x < lowest - 1) | (x > highest + 1) | np.isnan(x))
        if x.dtype == np.float32:
            same("exp beyond", got[0][edge], want[0].astype(np.float32)[edge])
        else:
            same("exp beyond", got[0][x < -709], np.zeros((x < -709).sum()))
            same("exp of NaN", np.isnan(got[0]), np.isnan(x))
    return got
