/* vec_math.h - exp, log and partial rows, built from the words of a level, so that all levels round alike. */
#pragma once
#if !defined(FD_LEVEL)                      /* a file that is read by itself: in plain C */
#include "vec_scalar.h"
#endif

/* The first n of 16 floats; the rest hold `fill`, the neutral value of what follows. */
static inline vf vf_load_part(const float *p, int64_t n, float fill)
{
    if (n >= 16) return vf_load(p);
    float lanes[16];
    for (int64_t i = 0; i < 16; i++) lanes[i] = i < n ? p[i] : fill;
    return vf_load(lanes);
}
static inline void vf_store_part(float *p, int64_t n, vf a)
{
    if (n >= 16) { vf_store(p, a); return; }
    float lanes[16];
    vf_store(lanes, a);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}
#if !defined(FD_OWN_TRANSPOSE)
/* 16 rows of 16 lanes: what was lane j of x[i] is lane i of x[j]. */
static inline void vf_transpose(vf x[16])
{
    float rows[16][16], lanes[16];
    for (int i = 0; i < 16; i++) vf_store(rows[i], x[i]);
    for (int j = 0; j < 16; j++) {
        for (int i = 0; i < 16; i++) lanes[i] = rows[i][j];
        x[j] = vf_load(lanes);
    }
}
#endif
static inline vd vd_load_part(const double *p, int64_t n, double fill)
{
    if (n >= 16) return vd_load(p);
    double lanes[16];
    for (int64_t i = 0; i < 16; i++) lanes[i] = i < n ? p[i] : fill;
    return vd_load(lanes);
}
static inline void vd_store_part(double *p, int64_t n, vd a)
{
    if (n >= 16) { vd_store(p, a); return; }
    double lanes[16];
    vd_store(lanes, a);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}
static inline vf vf_where_less(vf a, vf b, vf x, vf y) { return vf_select(vf_less(a, b), x, y); }
static inline vf vf_abs(vf a) { return vf_of_bits(vi_and(vi_of_bits(a), vi_set1(0x7fffffff))); }
static inline vf vf_without_tiny(vf a, float least) { return vf_where_less(vf_abs(a), vf_set1(least), vf_zero(), a); }  /* NaN stays */

/* e^r of x = n ln 2 + r, |r| <= ln 2 / 2: the series to r^7 (remainder below 5.4e-9). */
static inline vf exp_series(vf x, vi *n)
{
    *n = vi_round(vf_mul(x, vf_set1(1.44269504f)));
    vf nf = vf_from_int(*n);
    vf r = vf_fnma(nf, vf_set1(0.693145752f), x);                       /* 15 bits of ln 2: n times it is exact */
    r = vf_fnma(nf, vf_set1(1.42860677e-6f), r);
    vf p = vf_fma(r, vf_set1(1.0f / 5040), vf_set1(1.0f / 720));
    p = vf_fma(r, p, vf_set1(1.0f / 120));
    p = vf_fma(r, p, vf_set1(1.0f / 24));
    p = vf_fma(r, p, vf_set1(1.0f / 6));
    p = vf_fma(r, p, vf_set1(0.5f));
    p = vf_fma(r, p, vf_set1(1.0f));
    return vf_fma(r, p, vf_set1(1.0f));
}

/* exp: e^r 2^n.  Within 2 ulp; below -86.98 the result is 0 (e^-86.98 = 1.7e-38, the edge of the normal numbers); NaN stays NaN. */
static inline vf vf_exp(vf x)
{
    vf inside = vf_max(vf_set1(-87.0f), vf_min(vf_set1(89.0f), x));     /* operand order lets NaN through */
    vi n;
    vf p = exp_series(inside, &n);
    vf half = vf_of_bits(vi_shl(vi_add(n, vi_set1(126)), 23));          /* 2^(n-1): n reaches 128 before e^x overflows */
    p = vf_mul(vf_mul(p, half), vf_set1(2.0f));
    p = vf_select(vf_less(x, vf_set1(-86.98f)), vf_zero(), p);
    return vf_select(vf_equal(x, x), p, x);
}

/* exp of x <= 0 or NaN, with fewer steps: the bits of vf_exp, but below -86.2 perhaps for the last.  *clamped is x, but -87 below
 * that: where the result is 0 it is finite. */
static inline vf vf_exp_negative(vf x, vf *clamped)
{
    vf inside = *clamped = vf_max(vf_set1(-87.0f), x);
    vi n;
    vf p = exp_series(inside, &n);
    p = vf_of_bits(vi_add(vi_of_bits(p), vi_shl(n, 23)));               /* p 2^n, a normal number; NaN stays one: its n << 23 is 0 */
    return vf_select(vf_less(x, vf_set1(-86.98f)), vf_zero(), p);
}

static inline vf fd_exp_negative(vf x) { vf clamped; return vf_exp_negative(x, &clamped); }

/* tanh: (1 - t) / (1 + t) of t = e^(-2 |x|), with the sign of x.  Within 2^-22: t is off by 2 ulp, 2^-23 at most, and the quotient's
 * slope in it is at most 0.89 where that is so, 2 where t is smaller; three roundings of numbers up to 1, 2 and 1.  NaN stays NaN. */
static inline vf vf_tanh(vf x)
{
    vf unused, one = vf_set1(1.0f), t = vf_exp_negative(vf_mul(vf_abs(x), vf_set1(-2.0f)), &unused);
    vf size = vf_div(vf_sub(one, t), vf_add(one, t));
    return vf_where_less(x, vf_zero(), vf_sub(vf_zero(), size), size);
}

/* log of a positive normal number: x = 2^e m, m in [1/sqrt 2, sqrt 2), s = (m - 1) / (m + 1), |s| <= 0.1716, and
 * log m = 2 s (1 + s^2/3 + ... + s^8/9), remainder below s^10 / 11 = 2.1e-9 of it.  Within 2 ulp, measured. */
static inline vf vf_log(vf x)
{
    const int32_t low = 0x3f3504f3;                                     /* bits of 1 / sqrt 2 */
    vi shifted = vi_add(vi_of_bits(x), vi_set1(0x3f800000 - low));
    vf e = vf_from_int(vi_sub(vi_shr(shifted, 23), vi_set1(127)));
    vf f = vf_sub(vf_of_bits(vi_add(vi_and(shifted, vi_set1(0x7fffff)), vi_set1(low))), vf_set1(1.0f));
    vf s = vf_div(f, vf_add(f, vf_set1(2.0f)));
    vf z = vf_mul(s, s);
    vf p = vf_fma(z, vf_set1(1.0f / 9), vf_set1(1.0f / 7));
    p = vf_fma(z, p, vf_set1(1.0f / 5));
    p = vf_fma(z, p, vf_set1(1.0f / 3));
    p = vf_mul(p, z);
    vf twice = vf_add(s, s);
    vf log_m = vf_fma(twice, p, twice);
    return vf_fma(e, vf_set1(0.693145752f), vf_fma(e, vf_set1(1.42860677e-6f), log_m));
}

/* exp of doubles: x = n ln 2 + r, |r| <= ln 2 / 2, the series to r^13 (remainder below 4.1e-18), then 2^n.  Within 1 ulp, measured;
 * below -708 the result is 0, above 708 it is that of 708; NaN stays NaN. */
static inline vd vd_exp(vd x)
{
    const double shift = 0x1.8p52;                                      /* adding it rounds to an integer, in the low bits */
    vd inside = vd_max(vd_set1(-708.0), vd_min(vd_set1(708.0), x));
    vd t = vd_fma(inside, vd_set1(1.4426950408889634), vd_set1(shift)), n = vd_sub(t, vd_set1(shift));
    vd r = vd_fnma(n, vd_set1(0x1.62e42fefa39efp-1), inside);           /* ln 2 in two parts: fma rounds the rest once */
    r = vd_fnma(n, vd_set1(0x1.abc9e3b39803fp-56), r);
    vd p = vd_fma(r, vd_set1(1.0 / 6227020800), vd_set1(1.0 / 479001600));
    p = vd_fma(r, p, vd_set1(1.0 / 39916800));
    p = vd_fma(r, p, vd_set1(1.0 / 3628800));
    p = vd_fma(r, p, vd_set1(1.0 / 362880));
    p = vd_fma(r, p, vd_set1(1.0 / 40320));
    p = vd_fma(r, p, vd_set1(1.0 / 5040));
    p = vd_fma(r, p, vd_set1(1.0 / 720));
    p = vd_fma(r, p, vd_set1(1.0 / 120));
    p = vd_fma(r, p, vd_set1(1.0 / 24));
    p = vd_fma(r, p, vd_set1(1.0 / 6));
    p = vd_fma(r, p, vd_set1(0.5));
    p = vd_fma(r, p, vd_set1(1.0));
    p = vd_fma(r, p, vd_set1(1.0));
    p = vd_where_less(x, vd_set1(-708.0), vd_zero(), vd_scale(p, t));
    return vd_add(p, vd_sub(inside, inside));                           /* a NaN's payload may have become an exponent: NaN again */
}
/* log of positive normal doubles, as vf_log: s^2 <= 0.02944, the series to s^20 / 21, remainder below 4e-18 of it. */
static inline vd vd_log(vd x)
{
    vd e, f = vd_sub(vd_split(x, &e), vd_set1(1.0));
    vd s = vd_div(f, vd_add(f, vd_set1(2.0))), z = vd_mul(s, s);
    vd p = vd_fma(z, vd_set1(1.0 / 21), vd_set1(1.0 / 19));
    p = vd_fma(z, p, vd_set1(1.0 / 17));
    p = vd_fma(z, p, vd_set1(1.0 / 15));
    p = vd_fma(z, p, vd_set1(1.0 / 13));
    p = vd_fma(z, p, vd_set1(1.0 / 11));
    p = vd_fma(z, p, vd_set1(1.0 / 9));
    p = vd_fma(z, p, vd_set1(1.0 / 7));
    p = vd_fma(z, p, vd_set1(1.0 / 5));
    p = vd_fma(z, p, vd_set1(1.0 / 3));
    p = vd_mul(p, z);
    vd twice = vd_add(s, s), log_m = vd_fma(twice, p, twice);
    return vd_fma(e, vd_set1(0x1.62e42fefa39efp-1), vd_fma(e, vd_set1(0x1.abc9e3b39803fp-56), log_m));
}
static inline double fd_exp_double(double x) { double lanes[16]; vd_store(lanes, vd_exp(vd_set1(x))); return lanes[0]; }
static inline double fd_log_double(double x)                            /* of any number >= 0 */
{
    double lanes[16], scale = x < 0x1p-1000 ? 0x1p100 : 1.0;
    if (x <= 0.0) return -INFINITY;
    vd_store(lanes, vd_log(vd_set1(x * scale)));
    return x < 0x1p-1000 ? lanes[0] - 69.314718055994531 : lanes[0];
}

static inline double fd_max_lane_double(vd a)
{
    double lanes[16], best;
    vd_store(lanes, a);
    best = lanes[0];
    for (int i = 1; i < 16; i++) best = lanes[i] > best ? lanes[i] : best;
    return best;
}
static inline double fd_min_lane_double(vd a) { return -fd_max_lane_double(vd_sub(vd_zero(), a)); }
static inline float fd_exp(float x) { float lanes[16]; vf_store(lanes, vf_exp(vf_set1(x))); return lanes[0]; }
static inline float fd_log(float x) { float lanes[16]; vf_store(lanes, vf_log(vf_set1(x))); return lanes[0]; }
static inline float fd_max_lane(vf a)
{
    float lanes[16], best;
    vf_store(lanes, a);
    best = lanes[0];
    for (int i = 1; i < 16; i++) best = lanes[i] > best ? lanes[i] : best;
    return best;
}
