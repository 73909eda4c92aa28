/* vec_math.h - exp, log and partial rows, built from the words of a level, so that all levels round alike. */

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
static inline vf vf_abs(vf a) { return vf_of_bits(vi_and(vi_of_bits(a), vi_set1(0x7fffffff))); }

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
