/* vec_avx2.h - the vocabulary of vec_scalar.h in pairs of 256-bit registers (AVX2, FMA and F16C). */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <immintrin.h>
#include "base.h"
#define FD_LEVEL avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

typedef struct { __m256 a, b; } vf;
typedef struct { __m256d a, b, c, d; } vd;
typedef struct { __m256i a, b; } vi;
typedef struct { __m256i a, b; } vm;
typedef vi vb;
typedef vi vs;                      /* 16-bit sums: 8 pair sums of 2 x 15 x 127 stay below 2^15 */

#define FD_ROW_TILE 4               /* 4 rows x 2 registers of sums, 4 of codes, 1 of activations: 13 of 16 */

#define FD_VF(lo, hi) ((vf){(lo), (hi)})
#define FD_VI(lo, hi) ((vi){(lo), (hi)})
#define FD_VM(lo, hi) ((vm){(lo), (hi)})

static inline vf vf_set1(float a) { __m256 r = _mm256_set1_ps(a); return FD_VF(r, r); }
static inline vf vf_zero(void) { return FD_VF(_mm256_setzero_ps(), _mm256_setzero_ps()); }
static inline vf vf_load(const float *p) { return FD_VF(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
static inline vf vf_add(vf x, vf y) { return FD_VF(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
static inline vf vf_sub(vf x, vf y) { return FD_VF(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
static inline vf vf_mul(vf x, vf y) { return FD_VF(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
static inline vf vf_div(vf x, vf y) { return FD_VF(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
static inline vf vf_fma(vf x, vf y, vf z) { return FD_VF(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)); }
static inline vf vf_fnma(vf x, vf y, vf z) { return FD_VF(_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)); }
static inline vf vf_max(vf x, vf y) { return FD_VF(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
static inline vf vf_min(vf x, vf y) { return FD_VF(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
static inline vf vf_sqrt(vf x) { return FD_VF(_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)); }
static inline __m256 fd_eight(vf x) { return _mm256_add_ps(x.a, x.b); }
static inline float vf_sum(vf x)
{
    __m256 eight = fd_eight(x);
    __m256 pairs = _mm256_hadd_ps(eight, eight);                        /* 01 23 01 23 | 45 67 45 67 */
    __m256 fours = _mm256_hadd_ps(pairs, pairs);
    return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
}

static inline vd vd_zero(void) { __m256d r = _mm256_setzero_pd(); return (vd){r, r, r, r}; }
static inline __m256d fd_add_four(__m256d x, __m128 y) { return _mm256_add_pd(x, _mm256_cvtps_pd(y)); }
static inline vd vd_add_floats(vd x, vf y)
{
    return (vd){fd_add_four(x.a, _mm256_castps256_ps128(y.a)), fd_add_four(x.b, _mm256_extractf128_ps(y.a, 1)),
                fd_add_four(x.c, _mm256_castps256_ps128(y.b)), fd_add_four(x.d, _mm256_extractf128_ps(y.b, 1))};
}
static inline double vd_sum(vd x)
{
    __m256d fours = _mm256_hadd_pd(_mm256_add_pd(x.a, x.c), _mm256_add_pd(x.b, x.d));       /* 01 45 | 23 67 */
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(fours), _mm256_extractf128_pd(fours, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

static inline vd vd_set1(double x) { __m256d r = _mm256_set1_pd(x); return (vd){r, r, r, r}; }
static inline vd vd_load(const double *p)
{
    return (vd){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8), _mm256_loadu_pd(p + 12)};
}
static inline void vd_store(double *p, vd x)
{
    _mm256_storeu_pd(p, x.a);
    _mm256_storeu_pd(p + 4, x.b);
    _mm256_storeu_pd(p + 8, x.c);
    _mm256_storeu_pd(p + 12, x.d);
}
static inline vd vd_from_floats(vf x)
{
    return (vd){_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
                _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))};
}
static inline vf vf_from_doubles(vd x)
{
    return FD_VF(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(x.a)), _mm256_cvtpd_ps(x.b), 1),
                 _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(x.c)), _mm256_cvtpd_ps(x.d), 1));
}
#define FD_VD2(f) ((vd){f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)})
#define FD_VD3(f) ((vd){f(x.a, y.a, z.a), f(x.b, y.b, z.b), f(x.c, y.c, z.c), f(x.d, y.d, z.d)})
static inline vd vd_add(vd x, vd y) { return FD_VD2(_mm256_add_pd); }
static inline vd vd_sub(vd x, vd y) { return FD_VD2(_mm256_sub_pd); }
static inline vd vd_mul(vd x, vd y) { return FD_VD2(_mm256_mul_pd); }
static inline vd vd_div(vd x, vd y) { return FD_VD2(_mm256_div_pd); }
static inline vd vd_fma(vd x, vd y, vd z) { return FD_VD3(_mm256_fmadd_pd); }
static inline vd vd_fnma(vd x, vd y, vd z) { return FD_VD3(_mm256_fnmadd_pd); }
static inline vd vd_max(vd x, vd y) { return FD_VD2(_mm256_max_pd); }
static inline vd vd_min(vd x, vd y) { return FD_VD2(_mm256_min_pd); }
static inline vd vd_abs(vd x)
{
    __m256d sign = _mm256_set1_pd(-0.0);
    return (vd){_mm256_andnot_pd(sign, x.a), _mm256_andnot_pd(sign, x.b), _mm256_andnot_pd(sign, x.c), _mm256_andnot_pd(sign, x.d)};
}
static inline vd vd_sqrt(vd x) { return (vd){_mm256_sqrt_pd(x.a), _mm256_sqrt_pd(x.b), _mm256_sqrt_pd(x.c), _mm256_sqrt_pd(x.d)}; }
static inline __m256d fd_where4(__m256d x, __m256d y, __m256d yes, __m256d no)
{
    return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(x, y, _CMP_LT_OQ));
}
static inline vd vd_where_less(vd x, vd y, vd yes, vd no)
{
    return (vd){fd_where4(x.a, y.a, yes.a, no.a), fd_where4(x.b, y.b, yes.b, no.b), fd_where4(x.c, y.c, yes.c, no.c),
                fd_where4(x.d, y.d, yes.d, no.d)};
}
static inline __m256d fd_scale4(__m256d x, __m256d y)
{
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(x), _mm256_slli_epi64(_mm256_castpd_si256(y), 52)));
}
static inline vd vd_scale(vd x, vd y) { return FD_VD2(fd_scale4); }
static inline __m256d fd_split4(__m256d x, __m256d *e)
{
    const __m256i half_root = _mm256_set1_epi64x(0x3fe6a09e667f3bcdLL), fraction = _mm256_set1_epi64x(0xfffffffffffffLL);
    __m256i bits = _mm256_add_epi64(_mm256_castpd_si256(x), _mm256_sub_epi64(_mm256_set1_epi64x(0x3ff0000000000000LL), half_root));
    __m256i power = _mm256_or_si256(_mm256_srli_epi64(bits, 52), _mm256_set1_epi64x(0x4330000000000000LL));     /* as 2^52 + it */
    *e = _mm256_sub_pd(_mm256_castsi256_pd(power), _mm256_set1_pd(0x1p52 + 1023.0));
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_and_si256(bits, fraction), half_root));
}
static inline vd vd_split(vd x, vd *e)
{
    vd m = {fd_split4(x.a, &e->a), fd_split4(x.b, &e->b), fd_split4(x.c, &e->c), fd_split4(x.d, &e->d)};
    return m;
}

static inline float fd_f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
static inline vf vf_load_f16(const uint16_t *p)
{
    return FD_VF(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))));
}
static inline void vf_store_f16(uint16_t *p, vf x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, 0));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, 0));
}
static inline __m256 fd_bf16x8(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline vf vf_load_bf16(const uint16_t *p) { return FD_VF(fd_bf16x8(p), fd_bf16x8(p + 8)); }

#define FD_OWN_TRANSPOSE
static inline __m256 fd_low_pairs(__m256 x, __m256 y) { return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(x), _mm256_castps_pd(y))); }
static inline __m256 fd_high_pairs(__m256 x, __m256 y) { return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(x), _mm256_castps_pd(y))); }
static inline void fd_transpose8(__m256 x[8])
{
    __m256 fours[8];                                 /* [4 i + c]: of rows 4 i .. 4 i + 3 columns c and 4 + c */
    for (int i = 0; i < 8; i += 4) {
        __m256 low = _mm256_unpacklo_ps(x[i], x[i + 1]), high = _mm256_unpackhi_ps(x[i], x[i + 1]);
        __m256 low2 = _mm256_unpacklo_ps(x[i + 2], x[i + 3]), high2 = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        fours[i] = fd_low_pairs(low, low2);
        fours[i + 1] = fd_high_pairs(low, low2);
        fours[i + 2] = fd_low_pairs(high, high2);
        fours[i + 3] = fd_high_pairs(high, high2);
    }
    for (int c = 0; c < 4; c++) {
        x[c] = _mm256_permute2f128_ps(fours[c], fours[4 + c], 0x20);
        x[4 + c] = _mm256_permute2f128_ps(fours[c], fours[4 + c], 0x31);
    }
}
static inline void vf_transpose(vf x[16])
{
    __m256 quarter[4][8];                            /* rows 0 .. 7 and 8 .. 15, of each the first columns and the last */
    for (int i = 0; i < 16; i++) {
        quarter[i / 8 * 2][i % 8] = x[i].a;
        quarter[i / 8 * 2 + 1][i % 8] = x[i].b;
    }
    for (int i = 0; i < 4; i++) fd_transpose8(quarter[i]);
    for (int i = 0; i < 16; i++) x[i] = FD_VF(quarter[i / 8][i % 8], quarter[2 + i / 8][i % 8]);
}

static inline vi vi_set1(int32_t a) { __m256i r = _mm256_set1_epi32(a); return FD_VI(r, r); }
static inline vi vi_load(const int32_t *p)
{
    return FD_VI(_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8)));
}
static inline void vi_store(int32_t *p, vi x) { _mm256_storeu_si256((__m256i *)p, x.a); _mm256_storeu_si256((__m256i *)(p + 8), x.b); }
static inline vi vi_add(vi x, vi y) { return FD_VI(_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)); }
static inline vi vi_sub(vi x, vi y) { return FD_VI(_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)); }
static inline vi vi_and(vi x, vi y) { return FD_VI(_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)); }
static inline vi vi_or(vi x, vi y) { return FD_VI(_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)); }
static inline vi vi_xor(vi x, vi y) { return FD_VI(_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)); }
static inline vi vi_max(vi x, vi y) { return FD_VI(_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)); }
static inline vi vi_max_unsigned(vi x, vi y) { return FD_VI(_mm256_max_epu32(x.a, y.a), _mm256_max_epu32(x.b, y.b)); }
static inline vi vi_shl(vi x, int n) { return FD_VI(_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)); }
static inline vi vi_shr(vi x, int n) { return FD_VI(_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)); }
static inline vi vi_mul_low(vi x, vi y) { return FD_VI(_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)); }
static inline __m256i fd_mul_high8(__m256i x, __m256i y)
{
    __m256i even = _mm256_mul_epu32(x, y), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}
static inline vi vi_mul_high(vi x, vi y) { return FD_VI(fd_mul_high8(x.a, y.a), fd_mul_high8(x.b, y.b)); }
static inline int32_t vi_sum(vi x)
{
    __m256i eight = _mm256_add_epi32(x.a, x.b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
static inline int32_t vi_largest(vi x)
{
    __m256i eight = _mm256_max_epi32(x.a, x.b);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
static inline vi vi_iota(void)
{
    return FD_VI(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
}

static inline vf vf_from_int(vi x) { return FD_VF(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)); }
static inline vi vi_round(vf x) { return FD_VI(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)); }
static inline vi vi_of_bits(vf x) { return FD_VI(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)); }
static inline vf vf_of_bits(vi x) { return FD_VF(_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)); }

static inline __m256i fd_less8(__m256 x, __m256 y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_LT_OQ)); }
static inline __m256i fd_equal8(__m256 x, __m256 y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_EQ_OQ)); }
static inline vm vf_less(vf x, vf y) { return FD_VM(fd_less8(x.a, y.a), fd_less8(x.b, y.b)); }
static inline vm vf_equal(vf x, vf y) { return FD_VM(fd_equal8(x.a, y.a), fd_equal8(x.b, y.b)); }
static inline vm vi_less(vi x, vi y) { return FD_VM(_mm256_cmpgt_epi32(y.a, x.a), _mm256_cmpgt_epi32(y.b, x.b)); }
static inline vm vi_equal(vi x, vi y) { return FD_VM(_mm256_cmpeq_epi32(x.a, y.a), _mm256_cmpeq_epi32(x.b, y.b)); }
static inline uint32_t vm_bits(vm m)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m.a)) | (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m.b)) << 8;
}
static inline vi vi_select(vm m, vi x, vi y) { return FD_VI(_mm256_blendv_epi8(y.a, x.a, m.a), _mm256_blendv_epi8(y.b, x.b, m.b)); }
static inline vf vf_select(vm m, vf x, vf y)
{
    return FD_VF(_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(m.a)), _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(m.b)));
}

#define FD_PRODUCT_FLOAT "vfmadd"
#define FD_PRODUCT_Q8 "int8 vpmaddubsw"
#define FD_PRODUCT_Q4 "int8 vpmaddubsw"
static inline __m256i fd_broadcast4(const int8_t *x4) { int32_t x; memcpy(&x, x4, 4); return _mm256_set1_epi32(x); }
static inline void vb_load_q4(const uint8_t *p, vb *low, vb *high)
{
    __m256i nibble = _mm256_set1_epi8(15);
    __m256i a = _mm256_loadu_si256((const __m256i *)p), b = _mm256_loadu_si256((const __m256i *)(p + 32));
    *low = FD_VI(_mm256_and_si256(a, nibble), _mm256_and_si256(b, nibble));
    *high = FD_VI(_mm256_and_si256(_mm256_srli_epi16(a, 4), nibble), _mm256_and_si256(_mm256_srli_epi16(b, 4), nibble));
}
static inline vb vb_load_q8(const int8_t *p) { return vi_load((const int32_t *)(const void *)p); }
static inline vs vs_q4_zero(void) { return vi_set1(0); }
static inline vs vs_q4_dot(vs sum, vb codes, const int8_t *x4)
{
    __m256i x = fd_broadcast4(x4);
    return FD_VI(_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(codes.a, x)), _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(codes.b, x)));
}
static inline vi vs_q4_total(vs sum)
{
    __m256i one = _mm256_set1_epi16(1);
    return FD_VI(_mm256_madd_epi16(sum.a, one), _mm256_madd_epi16(sum.b, one));
}
/* |code| as unsigned times x with the code's sign: |-128| is 128 there, and 2 x 128 x 127 stays below 2^15. */
static inline __m256i fd_q8_dot8(__m256i sum, __m256i codes, __m256i x)
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static inline vi vi_q8_start(int32_t x_sum) { (void)x_sum; return vi_set1(0); }
static inline vi vi_q8_dot(vi sum, vb codes, const int8_t *x4)
{
    __m256i x = fd_broadcast4(x4);
    return FD_VI(fd_q8_dot8(sum.a, codes.a, x), fd_q8_dot8(sum.b, codes.b, x));
}
static inline void vi_store_int8(int8_t *p, vi x)
{
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
