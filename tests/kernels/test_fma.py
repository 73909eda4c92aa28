"""A fused multiply-add in plain C rounds once, whatever the compiler and its library: beside exact fractions."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
MAIN = """
#include "vec_scalar.h"
void fma32(const float *a, const float *b, const float *c, float *r) { vf_store(r, vf_fma(vf_load(a), vf_load(b), vf_load(c))); }
void fma64(const double *a, const double *b, const double *c, double *r) { vd_store(r, vd_fma(vd_load(a), vd_load(b), vd_load(c))); }
"""
# Of a type: its bits as integers, bits of a significand, the exponent of the last bit of subnormal numbers, the first that overflows.
TYPES = {np.float32: (np.uint32, 24, -149, 128), np.float64: (np.uint64, 53, -1074, 1024)}


def rounded(x: Fraction, precision: int, least: int, most: int) -> float:
    """To nearest, ties to even; x is not 0."""
    size = abs(x.numerator).bit_length() - x.denominator.bit_length()
    size -= abs(x) < Fraction(2) ** size  # 2^size <= |x| < 2^(size + 1)
    unit = max(size - precision + 1, least)
    count = round(x / Fraction(2) ** unit)
    result = math.inf if abs(count) * Fraction(2) ** unit >= 2**most else math.ldexp(abs(count), unit)
    return -result if x < 0 else result


def exact(a: float, b: float, c: float, precision: int, least: int, most: int) -> float:
    """a b + c, rounded once."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    sum = Fraction(a) * Fraction(b) + Fraction(c)
    if sum:
        return rounded(sum, precision, least, most)
    return math.copysign(1, a) * math.copysign(1, b) * 0.0 + c if c == 0 else 0.0


def cases(real: type, count: int) -> list[np.ndarray]:
    """Any bits; few bits; exponents at the bottom and at the top; sums that nearly vanish or lie half-way; the special numbers."""
    integer, precision, least, most = TYPES[real]
    random = np.random.default_rng(precision)
    stored, width = precision - 1, np.dtype(real).itemsize * 8
    bits = random.integers(0, 2**width, (3, count), integer, endpoint=False)
    any_bits = bits.view(real).copy()
    # Significands of few bits: the lower ones cleared.  Exponents within 64 of a middle: of each case another.
    bits &= ~((integer(1) << random.integers(0, stored + 1, (3, count)).astype(integer)) - integer(1))
    middle = random.choice(
        [0, (least + precision) // 2, (least + precision // 2) // 2, most // 2 - 16, 20 - most // 3], count
    )
    exponent = np.clip(middle + random.integers(-32, 32, (3, count)) + most - 1, 1, 2 * most - 2).astype(integer)
    bits = (bits & ~(integer(2 * most - 1) << integer(stored))) | (exponent << integer(stored))
    a, b, c = bits.view(real).copy()
    # Of each four: c what the product is but for its sign, or that by any power of two within twice the precision; a product that is
    # half of c's last bit, but for a part far below; all three as they are.
    with np.errstate(all="ignore"):
        product = (a * b).astype(real)
        c[::4] = -product[::4]
        c[1::4] = np.ldexp(product, random.integers(-2 * precision, 2 * precision, count))[1::4]
        c[2::8] = np.ldexp(random.integers(1, 2**stored, count // 8).astype(real), least)  # subnormal
        half = np.maximum(np.frexp(c[2::4])[1] - precision, least) - 1
        more = 1 + random.choice([-1, 1], len(half)) * np.finfo(real).eps
        a[2::4], b[2::4] = np.ldexp(more.astype(real), half // 2), np.ldexp((2 - more).astype(real), half - half // 2)
    special = np.array(
        [0, -0.0, 1, -1, math.inf, -math.inf, math.nan, 2.0**least, -(2.0**least), 2.0 ** (least // 2), 0.75]
    )
    special = np.append(special, [np.finfo(real).max, -np.finfo(real).max, np.finfo(real).tiny]).astype(real)
    all_three = np.stack(np.meshgrid(special, special, special)).reshape(3, -1)
    together = np.concatenate([any_bits, [a, b, c], all_three], axis=1)
    return list(np.ascontiguousarray(together[:, : together.shape[1] // 16 * 16]))


@pytest.fixture(scope="module", params=["gcc", "clang"])
def words(request, tmp_path_factory) -> ctypes.CDLL:
    compiler = shutil.which(request.param)
    if compiler is None:
        pytest.skip(f"needs {request.param}")
    at = tmp_path_factory.mktemp("fma") / "words.so"
    command = [compiler, "-std=gnu11", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", f"-I{CSRC}"]
    subprocess.run([*command, "-x", "c", "-", "-o", at, "-lm"], input=MAIN, text=True, check=True)
    return ctypes.CDLL(str(at))


@pytest.mark.parametrize("real", TYPES)
def test_a_fused_multiply_add_rounds_once(words, real):
    integer, *form = TYPES[real]
    a, b, c = cases(real, 20000)
    got = np.empty_like(a)
    for at in range(0, len(a), 16):
        pointers = [ctypes.c_void_p(array[at:].ctypes.data) for array in (a, b, c, got)]
        getattr(words, f"fma{np.dtype(real).itemsize * 8}")(*pointers)
    want = np.array([exact(*map(float, three), *form) for three in zip(a, b, c, strict=True)], real)
    differ = (got.view(integer) != want.view(integer)) & ~(np.isnan(got) & np.isnan(want))
    assert not differ.any(), [[float(x).hex() for x in three] for three in np.stack([a, b, c])[:, differ].T[:5]]
    # The cases can tell: some are subnormal, some would be wrong if the sum were rounded to a double first.
    assert (np.isfinite(want) & (want != 0) & (abs(want) < np.finfo(real).tiny)).sum() > 500
    if real is np.float32:
        with np.errstate(all="ignore"):
            twice = (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)
        assert ((twice != want) & ~np.isnan(want)).sum() > 100
