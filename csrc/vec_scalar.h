/* vec_scalar.h - the vector vocabulary in plain C: what each word means.
 *
 * A vf holds 16 floats, a vd 16 doubles, a vi 16 int32, a vm 16 truth values, a vb 16 lanes of 4 bytes.  Every level gives the same
 * bits for every word, a NaN's sign and payload aside: one rounding per operation, one order for every fold.  See docs/numerics.md.
 *
 * The words are written for quarters of 16 bytes, in the vector types of gcc and clang: any CPU with registers of that size (SSE2, NEON
 * of AArch64) uses them, on others the compiler takes a lane at a time.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base.h"
#if !defined(FD_LEVEL)
#define FD_LEVEL scalar
#endif
#define FD_LEVEL_IS_SCALAR

#define FD_QUARTER __attribute__((vector_size(16)))
typedef float fd_f4 FD_QUARTER;
typedef double fd_d2 FD_QUARTER;
typedef int32_t fd_i4 FD_QUARTER;
typedef uint32_t fd_u4 FD_QUARTER;
typedef int64_t fd_i2 FD_QUARTER;
typedef uint64_t fd_u2 FD_QUARTER;
typedef int16_t fd_i8 FD_QUARTER;
typedef uint16_t fd_u8 FD_QUARTER;
typedef uint16_t fd_halves __attribute__((vector_size(8)));

typedef struct { fd_f4 v[4]; } vf;
typedef struct { fd_d2 v[8]; } vd;
typedef struct { fd_i4 v[4]; } vi;
typedef struct { fd_i4 v[4]; } vm;  /* all bits of a lane */
typedef struct { fd_i8 v[4]; } vb;
typedef struct { fd_i8 v[4]; } vs;  /* sums of a block, as wide as the level needs: 8 pair sums of 2 x 15 x 127 stay below 2^15 */

#define FD_ROW_TILE 4               /* rows of one register tile, 4 or 8: whole groups of fd_block */

/* Statements for each quarter i of a vf, of a vd.  Written out: a loop would be unrolled late, its arrays in memory until then. */
#define FD_AT(n, ...) { enum { i = n }; __VA_ARGS__ }
#define FD_EACH2(...) FD_AT(0, __VA_ARGS__) FD_AT(1, __VA_ARGS__)
#define FD_EACH(...) FD_EACH2(__VA_ARGS__) FD_AT(2, __VA_ARGS__) FD_AT(3, __VA_ARGS__)
#define FD_EACH8(...) FD_EACH(__VA_ARGS__) FD_AT(4, __VA_ARGS__) FD_AT(5, __VA_ARGS__) FD_AT(6, __VA_ARGS__) FD_AT(7, __VA_ARGS__)
#define FD_LANE(n) for (int lane = 0; lane < (n); lane++)

/* A word of many instructions, at hundreds of places: one function, or the compiler takes minutes. */
#define FD_LONG static __attribute__((noinline, unused))
/* A word of doubles.  Where there are no vectors of them, such words inlined take the compiler twice the time and 400 MB (32-bit ARM). */
#if !defined(__SSE2__) && !defined(__aarch64__)
#define FD_WIDE FD_LONG
#else
#define FD_WIDE static inline
#endif

/* Lanes of a where the mask is set, else of b. */
static inline fd_f4 fd_pick(fd_i4 mask, fd_f4 a, fd_f4 b) { return (fd_f4)((mask & (fd_i4)a) | (~mask & (fd_i4)b)); }
static inline fd_d2 fd_pick_d(fd_i2 mask, fd_d2 a, fd_d2 b) { return (fd_d2)((mask & (fd_i2)a) | (~mask & (fd_i2)b)); }
static inline fd_i4 fd_pick_i(fd_i4 mask, fd_i4 a, fd_i4 b) { return (mask & a) | (~mask & b); }

/* ---- a b + c, rounded once ----
 * Where the target has no instruction for it, from sums and products: a call of the C library takes many times as long, and not every
 * library rounds once. */
static inline fd_d2 fd_abs_d(fd_d2 a) { return (fd_d2)((fd_u2)a & ~(1ULL << 63)); }
#if defined(__FP_FAST_FMA) || defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__riscv_d)
static inline fd_f4 fd_fma(fd_f4 a, fd_f4 b, fd_f4 c)
{
    return (fd_f4){fmaf(a[0], b[0], c[0]), fmaf(a[1], b[1], c[1]), fmaf(a[2], b[2], c[2]), fmaf(a[3], b[3], c[3])};
}
static inline fd_d2 fd_fma_d(fd_d2 a, fd_d2 b, fd_d2 c) { return (fd_d2){fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1])}; }
#else
/* What sum = a + b has lost, exactly; NaN where sum is not finite. */
static inline fd_d2 fd_lost(fd_d2 a, fd_d2 b, fd_d2 sum) { fd_d2 other = sum - a; return (a - (sum - other)) + (b - other); }
/* sum + lost between two numbers: the one whose last bit is 1.  It lies on the same side as they of every number of two bits less, and
 * of every half between such: rounded to those, it gives what the exact sum would. */
static inline fd_d2 fd_odd(fd_d2 sum, fd_d2 lost)
{
    fd_u2 inexact = (fd_u2)(fd_abs_d(lost) > 0.0) & 1, beyond = ((fd_u2)sum ^ (fd_u2)lost) >> 63;
    return (fd_d2)(((fd_u2)sum - (beyond & inexact)) | inexact);
}
/* In doubles the product is exact.  What the sum loses shows in a float only where the sum lies half-way between two: its last 28 bits
 * are 0 then. */
FD_LONG fd_f4 fd_fma(fd_f4 a, fd_f4 b, fd_f4 c)
{
    fd_d2 product[2], term[2], sum[2];
    fd_i4 half = {};
    FD_EACH2(
        product[i] = (fd_d2){a[2 * i], a[2 * i + 1]} * (fd_d2){b[2 * i], b[2 * i + 1]};
        term[i] = (fd_d2){c[2 * i], c[2 * i + 1]};
        sum[i] = product[i] + term[i];
        half |= (fd_u4)sum[i] << 4 == 0;)
    if (__builtin_expect(half[0] | half[2], 0)) { FD_EACH2(sum[i] = fd_odd(sum[i], fd_lost(product[i], term[i], sum[i]));) }
    return (fd_f4){(float)sum[0][0], (float)sum[0][1], (float)sum[1][0], (float)sum[1][1]};
}

/* product + c, and what a b + c is more than that: of the product's lower half, from halves of a and b, and of what the sum lost. */
static inline fd_d2 fd_upper(fd_d2 a) { fd_d2 wide = a * (0x1p27 + 1.0); return wide - (wide - a); }                   /* 26 bits of it */
static inline fd_d2 fd_fma_parts(fd_d2 a, fd_d2 b, fd_d2 c, fd_d2 product, fd_d2 *rest)
{
    fd_d2 a1 = fd_upper(a), a2 = a - a1, b1 = fd_upper(b), b2 = b - b1, low = a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2);
    fd_d2 sum = product + c, lost = fd_lost(product, c, sum), both = lost + low;
    *rest = fd_odd(both, fd_lost(lost, low, both));
    return sum;
}
/* Any numbers: scaled by 2^-e, so that nothing overflows and no part is below 2^-1022.  A term 2^-200 of the other shows its sign alone.
 * A result below 2^-1022 is rounded to multiples of 2^-1074. */
static __attribute__((noinline, unused)) double fd_fma_far(double a, double b, double c)
{
    int ea, eb, ec, e;
    if (a - a != 0.0 || b - b != 0.0 || a == 0.0 || b == 0.0) return a * b + c;
    if (c - c != 0.0) return c;
    a = frexp(a, &ea), b = frexp(b, &eb), c = frexp(c, &ec);
    ea += eb;
    e = ea > ec || c == 0.0 ? ea : ec;
    if (e < -1200) e = -1200;
    fd_d2 x = {ldexp(a, ea - e < -200 ? -200 : ea - e)}, y = {b}, z = {ldexp(c, ec - e < -200 ? -200 : ec - e)}, rest;
    fd_d2 sum = fd_fma_parts(x, y, z, x * y, &rest);
    double result = sum[0] + rest[0], least = ldexp(1.0, -1022 - e);
    if (fabs(result) <= least) {                                        /* to multiples of 2^-52 of it: between it and twice that */
        fd_d2 base = {copysign(least, result)}, more = base + sum, lost = fd_lost(base, sum, more), both = lost + rest;
        result = copysign(more[0] + fd_odd(both, fd_lost(lost, rest, both))[0] - base[0], result);
    }
    return ldexp(result, e);
}
FD_LONG fd_d2 fd_fma_d(fd_d2 a, fd_d2 b, fd_d2 c)
{
    fd_d2 rest, product = a * b, result = fd_fma_parts(a, b, c, product, &rest) + rest;
    fd_i2 small = fd_abs_d(product) < 0x1p-960;                         /* its lower half may be below 2^-1074 */
    result = fd_pick_d(small, product + c, result);                     /* which holds for a = 0 or b = 0 */
    fd_i2 far = (result - result != 0.0) | (small & (a != 0.0) & (b != 0.0));
    if (__builtin_expect(far[0] | far[1], 0)) FD_LANE(2) if (far[lane]) result[lane] = fd_fma_far(a[lane], b[lane], c[lane]);
    return result;
}
#endif

/* ---- floats ---- */
static inline vf vf_set1(float a) { vf r; FD_EACH(r.v[i] = (fd_f4){a, a, a, a};) return r; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vf vf_load(const float *p) { vf r; FD_EACH(memcpy(&r.v[i], p + 4 * i, 16);) return r; }
static inline void vf_store(float *p, vf a) { FD_EACH(memcpy(p + 4 * i, &a.v[i], 16);) }
static inline vf vf_add(vf a, vf b) { vf r; FD_EACH(r.v[i] = a.v[i] + b.v[i];) return r; }
static inline vf vf_sub(vf a, vf b) { vf r; FD_EACH(r.v[i] = a.v[i] - b.v[i];) return r; }
static inline vf vf_mul(vf a, vf b) { vf r; FD_EACH(r.v[i] = a.v[i] * b.v[i];) return r; }
static inline vf vf_div(vf a, vf b) { vf r; FD_EACH(r.v[i] = a.v[i] / b.v[i];) return r; }
static inline vf vf_fma(vf a, vf b, vf c) { vf r; FD_EACH(r.v[i] = fd_fma(a.v[i], b.v[i], c.v[i]);) return r; }        /* a b + c */
static inline vf vf_max(vf a, vf b) { vf r; FD_EACH(r.v[i] = fd_pick(a.v[i] > b.v[i], a.v[i], b.v[i]);) return r; }   /* NaN gives b */
static inline vf vf_min(vf a, vf b) { vf r; FD_EACH(r.v[i] = fd_pick(a.v[i] < b.v[i], a.v[i], b.v[i]);) return r; }
static inline vf vf_sqrt(vf a) { vf r; FD_EACH(FD_LANE(4) r.v[i][lane] = sqrtf(a.v[i][lane]);) return r; }
static inline vf vf_fnma(vf a, vf b, vf c) { FD_EACH(a.v[i] = -a.v[i];) return vf_fma(a, b, c); }                       /* c - a b */

/* The one order in which 16 lanes fold into one: halves, then neighbours, then neighbours' neighbours, then halves. */
static inline float vf_sum(vf a)
{
    fd_f4 low = a.v[0] + a.v[2], high = a.v[1] + a.v[3];
    return ((low[0] + low[1]) + (low[2] + low[3])) + ((high[0] + high[1]) + (high[2] + high[3]));
}

/* ---- doubles ---- */
FD_WIDE vd vd_set1(double a) { vd r; FD_EACH8(r.v[i] = (fd_d2){a, a};) return r; }
FD_WIDE vd vd_zero(void) { return vd_set1(0.0); }
FD_WIDE vd vd_load(const double *p) { vd r; FD_EACH8(memcpy(&r.v[i], p + 2 * i, 16);) return r; }
static inline void vd_store(double *p, vd a) { FD_EACH8(memcpy(p + 2 * i, &a.v[i], 16);) }
FD_WIDE vd vd_from_floats(vf a)
{
    vd r;
    FD_EACH8(r.v[i] = (fd_d2){(double)a.v[i / 2][i % 2 * 2], (double)a.v[i / 2][i % 2 * 2 + 1]};)
    return r;
}
FD_WIDE vf vf_from_doubles(vd a)
{
    vf r;
    FD_EACH(r.v[i] = (fd_f4){(float)a.v[2 * i][0], (float)a.v[2 * i][1], (float)a.v[2 * i + 1][0], (float)a.v[2 * i + 1][1]};)
    return r;
}
FD_WIDE vd vd_add(vd a, vd b) { vd r; FD_EACH8(r.v[i] = a.v[i] + b.v[i];) return r; }
FD_WIDE vd vd_sub(vd a, vd b) { vd r; FD_EACH8(r.v[i] = a.v[i] - b.v[i];) return r; }
FD_WIDE vd vd_mul(vd a, vd b) { vd r; FD_EACH8(r.v[i] = a.v[i] * b.v[i];) return r; }
FD_WIDE vd vd_div(vd a, vd b) { vd r; FD_EACH8(r.v[i] = a.v[i] / b.v[i];) return r; }
FD_WIDE vd vd_add_floats(vd a, vf b) { return vd_add(a, vd_from_floats(b)); }
FD_WIDE vd vd_fma(vd a, vd b, vd c) { vd r; FD_EACH8(r.v[i] = fd_fma_d(a.v[i], b.v[i], c.v[i]);) return r; }     /* a b + c */
FD_WIDE vd vd_fnma(vd a, vd b, vd c) { FD_EACH8(a.v[i] = -a.v[i];) return vd_fma(a, b, c); }                      /* c - a b */
FD_WIDE vd vd_where_less(vd a, vd b, vd x, vd y)
{
    vd r;
    FD_EACH8(r.v[i] = fd_pick_d(a.v[i] < b.v[i], x.v[i], y.v[i]);)
    return r;
}
FD_WIDE vd vd_max(vd a, vd b) { return vd_where_less(b, a, a, b); }                                               /* NaN gives b */
FD_WIDE vd vd_min(vd a, vd b) { return vd_where_less(a, b, a, b); }
FD_WIDE vd vd_abs(vd a) { vd r; FD_EACH8(r.v[i] = fd_abs_d(a.v[i]);) return r; }
FD_WIDE vd vd_sqrt(vd a) { vd r; FD_EACH8(FD_LANE(2) r.v[i][lane] = sqrt(a.v[i][lane]);) return r; }
FD_WIDE double vd_sum(vd a)                                       /* in the order of vf_sum */
{
    fd_d2 b[4];
    FD_EACH(b[i] = a.v[i] + a.v[i + 4];)
    return ((b[0][0] + b[0][1]) + (b[1][0] + b[1][1])) + ((b[2][0] + b[2][1]) + (b[3][0] + b[3][1]));
}
/* p 2^n of t = n + 1.5 * 2^52; p and the result are normal numbers. */
FD_WIDE vd vd_scale(vd p, vd t) { vd r; FD_EACH8(r.v[i] = (fd_d2)((fd_u2)p.v[i] + ((fd_u2)t.v[i] << 52));) return r; }
/* A positive normal number is 2^e m with m in [1 / sqrt 2, sqrt 2). */
#define FD_HALF_ROOT 0x3fe6a09e667f3bcdULL                               /* bits of 1 / sqrt 2 */
FD_WIDE vd vd_split(vd x, vd *e)
{
    vd m;
    FD_EACH8(
        fd_u2 bits = (fd_u2)x.v[i] + (0x3ff0000000000000ULL - FD_HALF_ROOT);
        e->v[i] = (fd_d2)((bits >> 52) | 0x4330000000000000ULL) - (0x1p52 + 1023.0);       /* 2^52 + n is exact */
        m.v[i] = (fd_d2)((bits & 0xfffffffffffffULL) + FD_HALF_ROOT);)
    return m;
}

/* ---- 16-bit floats ---- */
static inline fd_u4 fd_widen(const uint16_t *p)
{
    fd_halves h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, fd_u4);
}
static inline fd_f4 fd_load_f16(const uint16_t *p)
{
    fd_u4 h = fd_widen(p), magnitude = h & 0x7fff;
    fd_u4 infinite = (fd_u4)(magnitude >= 0x7c00) & 0x7f800000, nan = (fd_u4)(magnitude > 0x7c00) & 0x400000;
    fd_f4 subnormal = __builtin_convertvector((fd_i4)magnitude, fd_f4) * 0x1p-24f;      /* exact */
    fd_f4 normal = (fd_f4)(((magnitude << 13) + (112u << 23)) | infinite | nan);
    return (fd_f4)((fd_u4)fd_pick(magnitude < 0x400, subnormal, normal) | (h & 0x8000) << 16);
}
static inline float fd_f16_to_f32(uint16_t h) { return fd_load_f16((uint16_t[4]){h})[0]; }
static inline vf vf_load_f16(const uint16_t *p) { vf r; FD_EACH(r.v[i] = fd_load_f16(p + 4 * i);) return r; }
static inline uint16_t fd_f32_to_f16(float f)                           /* to nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return sign | 0x7e00u | (uint16_t)(bits >> 13 & 0x3ffu);
    if (bits >= 0x477ff000u) return sign | 0x7c00u;                     /* 65520 and above round to infinity */
    if (bits < 0x38800000u) {                                           /* below 2^-14: units of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        return sign | (uint16_t)lrintf(magnitude * 0x1p24f);
    }
    return sign | (uint16_t)((bits + 0xfffu + (bits >> 13 & 1u) - (112u << 23)) >> 13);
}
FD_LONG void vf_store_f16(uint16_t *p, vf a) { FD_EACH(FD_LANE(4) p[4 * i + lane] = fd_f32_to_f16(a.v[i][lane]);) }
static inline vf vf_load_bf16(const uint16_t *p) { vf r; FD_EACH(r.v[i] = (fd_f4)(fd_widen(p + 4 * i) << 16);) return r; }

/* ---- integers ---- */
static inline vi vi_set1(int32_t a) { vi r; FD_EACH(r.v[i] = (fd_i4){a, a, a, a};) return r; }
static inline vi vi_load(const int32_t *p) { vi r; FD_EACH(memcpy(&r.v[i], p + 4 * i, 16);) return r; }
static inline void vi_store(int32_t *p, vi a) { FD_EACH(memcpy(p + 4 * i, &a.v[i], 16);) }
static inline vi vi_add(vi a, vi b) { vi r; FD_EACH(r.v[i] = (fd_i4)((fd_u4)a.v[i] + (fd_u4)b.v[i]);) return r; }
static inline vi vi_sub(vi a, vi b) { vi r; FD_EACH(r.v[i] = (fd_i4)((fd_u4)a.v[i] - (fd_u4)b.v[i]);) return r; }
static inline vi vi_and(vi a, vi b) { vi r; FD_EACH(r.v[i] = a.v[i] & b.v[i];) return r; }
static inline vi vi_or(vi a, vi b) { vi r; FD_EACH(r.v[i] = a.v[i] | b.v[i];) return r; }
static inline vi vi_xor(vi a, vi b) { vi r; FD_EACH(r.v[i] = a.v[i] ^ b.v[i];) return r; }
static inline int32_t vi_sum(vi a)
{
    fd_i4 four = (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]);
    return (four[0] + four[1]) + (four[2] + four[3]);
}
static inline vi vi_max(vi a, vi b) { vi r; FD_EACH(r.v[i] = fd_pick_i(a.v[i] > b.v[i], a.v[i], b.v[i]);) return r; }
static inline vi vi_max_unsigned(vi a, vi b)
{
    vi r;
    FD_EACH(r.v[i] = fd_pick_i((fd_u4)a.v[i] > (fd_u4)b.v[i], a.v[i], b.v[i]);)
    return r;
}
static inline int32_t vi_largest(vi a)
{
    int32_t r = a.v[0][0];
    FD_EACH(FD_LANE(4) r = a.v[i][lane] > r ? a.v[i][lane] : r;)
    return r;
}
static inline vi vi_shl(vi a, int n) { vi r; FD_EACH(r.v[i] = (fd_i4)((fd_u4)a.v[i] << n);) return r; }
static inline vi vi_shr(vi a, int n) { vi r; FD_EACH(r.v[i] = (fd_i4)((fd_u4)a.v[i] >> n);) return r; }                 /* logical */
static inline vi vi_mul_low(vi a, vi b) { vi r; FD_EACH(r.v[i] = (fd_i4)((fd_u4)a.v[i] * (fd_u4)b.v[i]);) return r; }
static inline vi vi_mul_high(vi a, vi b)                                                                                /* unsigned */
{
    vi r;
    FD_EACH(FD_LANE(4) r.v[i][lane] = (int32_t)((uint64_t)(uint32_t)a.v[i][lane] * (uint32_t)b.v[i][lane] >> 32);)
    return r;
}
static inline vi vi_iota(void) { vi r; FD_EACH(r.v[i] = (fd_i4){4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3};) return r; }

/* ---- between floats and integers ---- */
static inline vf vf_from_int(vi a) { vf r; FD_EACH(r.v[i] = __builtin_convertvector(a.v[i], fd_f4);) return r; }
static inline vi vi_round(vf a)      /* to nearest, ties to even; NaN gives 0 or INT32_MIN, what else does not fit any number */
{
    vi r;
    FD_EACH(
        fd_f4 x = a.v[i], whole = (fd_f4)(((fd_u4)x & 0x80000000u) | 0x4b000000u);         /* 2^23 with the sign of x */
        fd_i4 fits = (x >= -0x1p31f) & (x < 0x1p31f), fraction = (x > -0x1p23f) & (x < 0x1p23f);
        fd_f4 rounded = fd_pick(fraction, (x + whole) - whole, (fd_f4)(fits & (fd_i4)x));
        r.v[i] = fd_pick_i(fits, __builtin_convertvector(rounded, fd_i4), (fd_i4){} + INT32_MIN);)
    return r;
}
static inline vi vi_of_bits(vf a) { vi r; FD_EACH(r.v[i] = (fd_i4)a.v[i];) return r; }
static inline vf vf_of_bits(vi a) { vf r; FD_EACH(r.v[i] = (fd_f4)a.v[i];) return r; }

/* ---- truth ---- */
static inline vm vf_less(vf a, vf b) { vm r; FD_EACH(r.v[i] = a.v[i] < b.v[i];) return r; }
static inline vm vf_equal(vf a, vf b) { vm r; FD_EACH(r.v[i] = a.v[i] == b.v[i];) return r; }
static inline vm vi_less(vi a, vi b) { vm r; FD_EACH(r.v[i] = a.v[i] < b.v[i];) return r; }                             /* signed */
static inline vm vi_equal(vi a, vi b) { vm r; FD_EACH(r.v[i] = a.v[i] == b.v[i];) return r; }
static inline uint32_t vm_bits(vm m)
{
    fd_i4 bits = {};
    FD_EACH(bits |= m.v[i] & ((fd_i4){1, 2, 4, 8} << 4 * i);)
    return (uint32_t)(bits[0] | bits[1] | bits[2] | bits[3]);
}
static inline vf vf_select(vm m, vf a, vf b) { vf r; FD_EACH(r.v[i] = fd_pick(m.v[i], a.v[i], b.v[i]);) return r; }
static inline vi vi_select(vm m, vi a, vi b) { vi r; FD_EACH(r.v[i] = fd_pick_i(m.v[i], a.v[i], b.v[i]);) return r; }

/* ---- block sums: exact integers ----
 * lane i gains sum over j < 4 of codes[4 i + j] x[j].  Codes of q4 lie in 0..15, of q8 in -128..127, x in -127..127.
 * x4 is four activations as they lie in memory.  A level also says in words what it computes the products with. */
#define FD_PRODUCT_FLOAT "fma in plain C"
#define FD_PRODUCT_Q8 "int8 products in plain C"
#define FD_PRODUCT_Q4 "int8 products in plain C"
static inline void vb_load_q4(const uint8_t *p, vb *low, vb *high)      /* 64 bytes: two groups of 16 lanes x 4 codes */
{
    FD_EACH(
        fd_u8 bytes;
        memcpy(&bytes, p + 16 * i, 16);
        low->v[i] = (fd_i8)(bytes & 0x0f0f);
        high->v[i] = (fd_i8)(bytes >> 4 & 0x0f0f);)
}
static inline vb vb_load_q8(const int8_t *p) { vb r; FD_EACH(memcpy(&r.v[i], p + 16 * i, 16);) return r; }
static inline fd_i8 fd_twice(int a, int b)                               /* a, b, a, b, ... in 16 bits */
{
    int32_t pair = (int32_t)((uint32_t)(uint16_t)a | (uint32_t)b << 16);
    return (fd_i8)(fd_i4){pair, pair, pair, pair};
}
/* Pair sums, two a lane of 4 codes: codes 0 and 1, codes 2 and 3.  2 x 128 x 127 = 32512 is below 2^15. */
static inline fd_i8 fd_pairs(fd_i8 codes, const int8_t *x4)
{
    return ((fd_i8)((fd_u8)codes << 8) >> 8) * fd_twice(x4[0], x4[2]) + (codes >> 8) * fd_twice(x4[1], x4[3]);
}
static inline fd_i4 fd_add_pairs(fd_i8 pairs) { return ((fd_i4)((fd_u4)pairs << 16) >> 16) + ((fd_i4)pairs >> 16); }
static inline vs vs_q4_zero(void) { vs r; FD_EACH(r.v[i] = (fd_i8){};) return r; }
static inline vs vs_q4_dot(vs sum, vb codes, const int8_t *x4) { FD_EACH(sum.v[i] += fd_pairs(codes.v[i], x4);) return sum; }
static inline vi vs_q4_total(vs sum) { vi r; FD_EACH(r.v[i] = fd_add_pairs(sum.v[i]);) return r; }
static inline vi vi_q8_start(int32_t x_sum) { (void)x_sum; return vi_set1(0); }   /* some levels count codes from -128 */
static inline vi vi_q8_dot(vi sum, vb codes, const int8_t *x4) { FD_EACH(sum.v[i] += fd_add_pairs(fd_pairs(codes.v[i], x4));) return sum; }
static inline void vi_store_int8(int8_t *p, vi a) { FD_EACH(FD_LANE(4) p[4 * i + lane] = (int8_t)a.v[i][lane];) }       /* each lane fits */
