/* vec_avx512.h - the vocabulary of vec_scalar.h in 512-bit registers (F, BW, DQ, VL and VNNI). */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base.h"
#define FD_LEVEL avx512
#if defined(FD_EMULATE_AVX512)             /* tests/cross/run_avx512.sh: the same intrinsics on AVX2 */
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#endif

typedef __m512 vf;
typedef struct { __m512d a, b; } vd;
typedef __m512i vi;
typedef __mmask16 vm;
typedef __m512i vb;
typedef __m512i vs;

#define FD_ROW_TILE 8               /* 8 rows x (sums, results), 8 of codes, scales: 27 of 32 */

static inline vf vf_set1(float a) { return _mm512_set1_ps(a); }
static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_add(vf x, vf y) { return _mm512_add_ps(x, y); }
static inline vf vf_sub(vf x, vf y) { return _mm512_sub_ps(x, y); }
static inline vf vf_mul(vf x, vf y) { return _mm512_mul_ps(x, y); }
static inline vf vf_div(vf x, vf y) { return _mm512_div_ps(x, y); }
static inline vf vf_fma(vf x, vf y, vf z) { return _mm512_fmadd_ps(x, y, z); }
static inline vf vf_fnma(vf x, vf y, vf z) { return _mm512_fnmadd_ps(x, y, z); }
static inline vf vf_max(vf x, vf y) { return _mm512_max_ps(x, y); }
static inline vf vf_min(vf x, vf y) { return _mm512_min_ps(x, y); }
static inline vf vf_sqrt(vf x) { return _mm512_sqrt_ps(x); }
static inline __m256 fd_eight(vf x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }
static inline float vf_sum(vf x)
{
    __m256 eight = fd_eight(x);
    __m256 pairs = _mm256_hadd_ps(eight, eight);
    __m256 fours = _mm256_hadd_ps(pairs, pairs);
    return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
}

static inline vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
static inline vd vd_add_floats(vd x, vf y)
{
    return (vd){_mm512_add_pd(x.a, _mm512_cvtps_pd(_mm512_castps512_ps256(y))),
                _mm512_add_pd(x.b, _mm512_cvtps_pd(_mm512_extractf32x8_ps(y, 1)))};
}
static inline double vd_sum(vd x)
{
    __m512d eight = _mm512_add_pd(x.a, x.b);
    __m256d fours = _mm256_hadd_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));        /* 01 45 | 23 67 */
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(fours), _mm256_extractf128_pd(fours, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

static inline vd vd_set1(double x) { __m512d r = _mm512_set1_pd(x); return (vd){r, r}; }
static inline vd vd_load(const double *p) { return (vd){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)}; }
static inline void vd_store(double *p, vd x) { _mm512_storeu_pd(p, x.a); _mm512_storeu_pd(p + 8, x.b); }
static inline vd vd_from_floats(vf x)
{
    return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
}
static inline vf vf_from_doubles(vd x)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.a)), _mm512_cvtpd_ps(x.b), 1);
}
static inline vd vd_add(vd x, vd y) { return (vd){_mm512_add_pd(x.a, y.a), _mm512_add_pd(x.b, y.b)}; }
static inline vd vd_sub(vd x, vd y) { return (vd){_mm512_sub_pd(x.a, y.a), _mm512_sub_pd(x.b, y.b)}; }
static inline vd vd_mul(vd x, vd y) { return (vd){_mm512_mul_pd(x.a, y.a), _mm512_mul_pd(x.b, y.b)}; }
static inline vd vd_div(vd x, vd y) { return (vd){_mm512_div_pd(x.a, y.a), _mm512_div_pd(x.b, y.b)}; }
static inline vd vd_fma(vd x, vd y, vd z) { return (vd){_mm512_fmadd_pd(x.a, y.a, z.a), _mm512_fmadd_pd(x.b, y.b, z.b)}; }
static inline vd vd_fnma(vd x, vd y, vd z) { return (vd){_mm512_fnmadd_pd(x.a, y.a, z.a), _mm512_fnmadd_pd(x.b, y.b, z.b)}; }
static inline vd vd_max(vd x, vd y) { return (vd){_mm512_max_pd(x.a, y.a), _mm512_max_pd(x.b, y.b)}; }
static inline vd vd_min(vd x, vd y) { return (vd){_mm512_min_pd(x.a, y.a), _mm512_min_pd(x.b, y.b)}; }
static inline vd vd_abs(vd x) { return (vd){_mm512_abs_pd(x.a), _mm512_abs_pd(x.b)}; }
static inline vd vd_sqrt(vd x) { return (vd){_mm512_sqrt_pd(x.a), _mm512_sqrt_pd(x.b)}; }
static inline vd vd_where_less(vd x, vd y, vd yes, vd no)
{
    return (vd){_mm512_mask_mov_pd(no.a, _mm512_cmp_pd_mask(x.a, y.a, _CMP_LT_OQ), yes.a),
                _mm512_mask_mov_pd(no.b, _mm512_cmp_pd_mask(x.b, y.b, _CMP_LT_OQ), yes.b)};
}
static inline __m512d fd_scale8(__m512d p, __m512d t)
{
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(p), _mm512_slli_epi64(_mm512_castpd_si512(t), 52)));
}
static inline vd vd_scale(vd p, vd t) { return (vd){fd_scale8(p.a, t.a), fd_scale8(p.b, t.b)}; }
static inline __m512d fd_split8(__m512d x, __m512d *e)
{
    const __m512i half_root = _mm512_set1_epi64(0x3fe6a09e667f3bcdLL), fraction = _mm512_set1_epi64(0xfffffffffffffLL);
    __m512i bits = _mm512_add_epi64(_mm512_castpd_si512(x), _mm512_sub_epi64(_mm512_set1_epi64(0x3ff0000000000000LL), half_root));
    __m512i power = _mm512_or_si512(_mm512_srli_epi64(bits, 52), _mm512_set1_epi64(0x4330000000000000LL));      /* as 2^52 + it */
    *e = _mm512_sub_pd(_mm512_castsi512_pd(power), _mm512_set1_pd(0x1p52 + 1023.0));
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_and_si512(bits, fraction), half_root));
}
static inline vd vd_split(vd x, vd *e)
{
    vd m = {fd_split8(x.a, &e->a), fd_split8(x.b, &e->b)};
    return m;
}

static inline float fd_f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
static inline vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline void vf_store_f16(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, 0)); }
static inline vf vf_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

#define FD_OWN_TRANSPOSE
static inline __m512 fd_low_pairs(__m512 x, __m512 y) { return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))); }
static inline __m512 fd_high_pairs(__m512 x, __m512 y) { return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))); }
static inline void vf_transpose(vf x[16])
{
    __m512 fours[16];                                /* [4 i + c]: of rows 4 i .. 4 i + 3 columns c, 4 + c, 8 + c, 12 + c */
    for (int i = 0; i < 16; i += 4) {
        __m512 low = _mm512_unpacklo_ps(x[i], x[i + 1]), high = _mm512_unpackhi_ps(x[i], x[i + 1]);
        __m512 low2 = _mm512_unpacklo_ps(x[i + 2], x[i + 3]), high2 = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        fours[i] = fd_low_pairs(low, low2);
        fours[i + 1] = fd_high_pairs(low, low2);
        fours[i + 2] = fd_low_pairs(high, high2);
        fours[i + 3] = fd_high_pairs(high, high2);
    }
    for (int c = 0; c < 4; c++) {
        __m512 even = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0x88), odd = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0xdd);
        __m512 even2 = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0x88), odd2 = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0xdd);
        x[c] = _mm512_shuffle_f32x4(even, even2, 0x88);
        x[4 + c] = _mm512_shuffle_f32x4(odd, odd2, 0x88);
        x[8 + c] = _mm512_shuffle_f32x4(even, even2, 0xdd);
        x[12 + c] = _mm512_shuffle_f32x4(odd, odd2, 0xdd);
    }
}

static inline vi vi_set1(int32_t a) { return _mm512_set1_epi32(a); }
static inline vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline void vi_store(int32_t *p, vi x) { _mm512_storeu_si512(p, x); }
static inline vi vi_add(vi x, vi y) { return _mm512_add_epi32(x, y); }
static inline vi vi_sub(vi x, vi y) { return _mm512_sub_epi32(x, y); }
static inline vi vi_and(vi x, vi y) { return _mm512_and_si512(x, y); }
static inline vi vi_or(vi x, vi y) { return _mm512_or_si512(x, y); }
static inline vi vi_xor(vi x, vi y) { return _mm512_xor_si512(x, y); }
static inline vi vi_max(vi x, vi y) { return _mm512_max_epi32(x, y); }
static inline vi vi_max_unsigned(vi x, vi y) { return _mm512_max_epu32(x, y); }
static inline vi vi_shl(vi x, int n) { return _mm512_slli_epi32(x, (unsigned)n); }
static inline vi vi_shr(vi x, int n) { return _mm512_srli_epi32(x, (unsigned)n); }
static inline vi vi_mul_low(vi x, vi y) { return _mm512_mullo_epi32(x, y); }
static inline vi vi_mul_high(vi x, vi y)
{
    __m512i even = _mm512_mul_epu32(x, y), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(y, 32));
    return _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
}
static inline int32_t vi_sum(vi x)
{
    __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
static inline int32_t vi_largest(vi x)
{
    __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
static inline vi vi_iota(void) { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

static inline vf vf_from_int(vi x) { return _mm512_cvtepi32_ps(x); }
static inline vi vi_round(vf x) { return _mm512_cvtps_epi32(x); }
static inline vi vi_of_bits(vf x) { return _mm512_castps_si512(x); }
static inline vf vf_of_bits(vi x) { return _mm512_castsi512_ps(x); }

static inline vm vf_less(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
static inline vm vf_equal(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }
static inline vm vi_less(vi x, vi y) { return _mm512_cmpgt_epi32_mask(y, x); }
static inline vm vi_equal(vi x, vi y) { return _mm512_cmpeq_epi32_mask(x, y); }
static inline uint32_t vm_bits(vm m)
{
#if defined(__clang__) || defined(FD_EMULATE_AVX512)
    return m;
#else
    uint32_t bits;                                   /* gcc 12 may spill a widened mask as 16 bits and read 32 back: name the register */
    __asm__("kmovw %1, %0" : "=r"(bits) : "k"(m));
    return bits;
#endif
}
static inline vf vf_select(vm m, vf x, vf y) { return _mm512_mask_mov_ps(y, m, x); }
static inline vi vi_select(vm m, vi x, vi y) { return _mm512_mask_mov_epi32(y, m, x); }

#define FD_PRODUCT_FLOAT "vfmadd"
#define FD_PRODUCT_Q8 "int8 vpdpbusd"
#define FD_PRODUCT_Q4 "int8 vpdpbusd"
static inline __m512i fd_broadcast4(const int8_t *x4) { int32_t x; memcpy(&x, x4, 4); return _mm512_set1_epi32(x); }
static inline void vb_load_q4(const uint8_t *p, vb *low, vb *high)
{
    __m512i nibble = _mm512_set1_epi8(15), bytes = _mm512_loadu_si512(p);
    *low = _mm512_and_si512(bytes, nibble);
    *high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
}
/* VNNI multiplies unsigned by signed: q8 codes count from -128 here, and the sum starts at -128 times the activations' sum. */
static inline vb vb_load_q8(const int8_t *p) { return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)0x80)); }
static inline vs vs_q4_zero(void) { return _mm512_setzero_si512(); }
static inline vs vs_q4_dot(vs sum, vb codes, const int8_t *x4) { return _mm512_dpbusd_epi32(sum, codes, fd_broadcast4(x4)); }
static inline vi vs_q4_total(vs sum) { return sum; }
static inline vi vi_q8_start(int32_t x_sum) { return _mm512_set1_epi32(-128 * x_sum); }
static inline vi vi_q8_dot(vi sum, vb codes, const int8_t *x4) { return _mm512_dpbusd_epi32(sum, codes, fd_broadcast4(x4)); }
static inline void vi_store_int8(int8_t *p, vi x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(x)); }
