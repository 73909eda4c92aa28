/* vec_neon.h - the vocabulary of vec_scalar.h in quads of 128-bit registers: ARMv8.0, every 64-bit Raspberry Pi.
 *
 * The levels dotprod and i8mm include these words too, under their own name and target; only products of blocks differ (tile_neon.h).
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base.h"
#if !defined(FD_LEVEL)
#define FD_LEVEL neon
#if defined(__clang__)                      /* tile_end.h takes it back */
#pragma clang attribute push(__attribute__((target("neon"))), apply_to = function)
#endif
#endif
#include <arm_neon.h>

typedef struct { float32x4_t v[4]; } vf;
typedef struct { float64x2_t v[8]; } vd;
typedef struct { int32x4_t v[4]; } vi;
typedef struct { uint32x4_t v[4]; } vm;                                 /* all bits of a lane */

#define FD_ROW_TILE 4               /* of 32 registers: 2 rows x 16 outputs, or 4 rows x 8, each with sums and totals (tile_neon.h) */

/* Statements for each register i of a vf, of a vd.  Written out: lanes have to be constants, registers must not become an array. */
#define FD_AT(n, ...) { enum { i = n }; __VA_ARGS__ }
#define FD_EACH(...) FD_AT(0, __VA_ARGS__) FD_AT(1, __VA_ARGS__) FD_AT(2, __VA_ARGS__) FD_AT(3, __VA_ARGS__)
#define FD_EACH8(...) FD_EACH(__VA_ARGS__) FD_AT(4, __VA_ARGS__) FD_AT(5, __VA_ARGS__) FD_AT(6, __VA_ARGS__) FD_AT(7, __VA_ARGS__)
#define FD_QUADS(type, ...) { type r; FD_EACH(r.v[i] = __VA_ARGS__;) return r; }
#define FD_DOUBLES(...) { vd r; FD_EACH8(r.v[i] = __VA_ARGS__;) return r; }

/* ---- floats ---- */
static inline vf vf_set1(float a) FD_QUADS(vf, vdupq_n_f32(a))
static inline vf vf_zero(void) FD_QUADS(vf, vdupq_n_f32(0.0f))
static inline vf vf_load(const float *p) FD_QUADS(vf, vld1q_f32(p + 4 * i))
static inline void vf_store(float *p, vf x) { FD_EACH(vst1q_f32(p + 4 * i, x.v[i]);) }
static inline vf vf_add(vf x, vf y) FD_QUADS(vf, vaddq_f32(x.v[i], y.v[i]))
static inline vf vf_sub(vf x, vf y) FD_QUADS(vf, vsubq_f32(x.v[i], y.v[i]))
static inline vf vf_mul(vf x, vf y) FD_QUADS(vf, vmulq_f32(x.v[i], y.v[i]))
static inline vf vf_div(vf x, vf y) FD_QUADS(vf, vdivq_f32(x.v[i], y.v[i]))
static inline vf vf_fma(vf x, vf y, vf z) FD_QUADS(vf, vfmaq_f32(z.v[i], x.v[i], y.v[i]))
static inline vf vf_fnma(vf x, vf y, vf z) FD_QUADS(vf, vfmsq_f32(z.v[i], x.v[i], y.v[i]))
/* Compared and selected: FMAX has another rule for NaN. */
static inline vf vf_max(vf x, vf y) FD_QUADS(vf, vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]))
static inline vf vf_min(vf x, vf y) FD_QUADS(vf, vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]))
static inline vf vf_sqrt(vf x) FD_QUADS(vf, vsqrtq_f32(x.v[i]))
static inline float vf_sum(vf x)
{
    float32x4_t low = vaddq_f32(x.v[0], x.v[2]), high = vaddq_f32(x.v[1], x.v[3]);
    float32x4_t pairs = vpaddq_f32(low, high), fours = vpaddq_f32(pairs, pairs);
    return vgetq_lane_f32(fours, 0) + vgetq_lane_f32(fours, 1);
}

/* ---- doubles ---- */
static inline vd vd_set1(double x) FD_DOUBLES(vdupq_n_f64(x))
static inline vd vd_zero(void) FD_DOUBLES(vdupq_n_f64(0.0))
static inline vd vd_load(const double *p) FD_DOUBLES(vld1q_f64(p + 2 * i))
static inline void vd_store(double *p, vd x) { FD_EACH8(vst1q_f64(p + 2 * i, x.v[i]);) }
static inline vd vd_from_floats(vf x)
{
    vd r;
    FD_EACH(r.v[2 * i] = vcvt_f64_f32(vget_low_f32(x.v[i])); r.v[2 * i + 1] = vcvt_high_f64_f32(x.v[i]);)
    return r;
}
static inline vf vf_from_doubles(vd x) FD_QUADS(vf, vcvt_high_f32_f64(vcvt_f32_f64(x.v[2 * i]), x.v[2 * i + 1]))
static inline vd vd_add(vd x, vd y) FD_DOUBLES(vaddq_f64(x.v[i], y.v[i]))
static inline vd vd_sub(vd x, vd y) FD_DOUBLES(vsubq_f64(x.v[i], y.v[i]))
static inline vd vd_mul(vd x, vd y) FD_DOUBLES(vmulq_f64(x.v[i], y.v[i]))
static inline vd vd_div(vd x, vd y) FD_DOUBLES(vdivq_f64(x.v[i], y.v[i]))
static inline vd vd_fma(vd x, vd y, vd z) FD_DOUBLES(vfmaq_f64(z.v[i], x.v[i], y.v[i]))
static inline vd vd_fnma(vd x, vd y, vd z) FD_DOUBLES(vfmsq_f64(z.v[i], x.v[i], y.v[i]))
static inline vd vd_add_floats(vd x, vf y) { return vd_add(x, vd_from_floats(y)); }
static inline vd vd_where_less(vd x, vd y, vd yes, vd no) FD_DOUBLES(vbslq_f64(vcltq_f64(x.v[i], y.v[i]), yes.v[i], no.v[i]))
static inline vd vd_max(vd x, vd y) { return vd_where_less(y, x, x, y); }
static inline vd vd_min(vd x, vd y) { return vd_where_less(x, y, x, y); }
static inline vd vd_abs(vd x) FD_DOUBLES(vabsq_f64(x.v[i]))
static inline vd vd_sqrt(vd x) FD_DOUBLES(vsqrtq_f64(x.v[i]))
static inline double vd_sum(vd x)                                       /* in the order of vf_sum */
{
    float64x2_t low = vpaddq_f64(vaddq_f64(x.v[0], x.v[4]), vaddq_f64(x.v[1], x.v[5]));
    float64x2_t high = vpaddq_f64(vaddq_f64(x.v[2], x.v[6]), vaddq_f64(x.v[3], x.v[7]));
    return vpaddd_f64(low) + vpaddd_f64(high);
}
static inline vd vd_scale(vd p, vd t)
    FD_DOUBLES(vreinterpretq_f64_u64(vaddq_u64(vreinterpretq_u64_f64(p.v[i]), vshlq_n_u64(vreinterpretq_u64_f64(t.v[i]), 52))))
static inline vd vd_split(vd x, vd *e)
{
    const uint64_t half_root = 0x3fe6a09e667f3bcd;                      /* bits of 1 / sqrt 2 */
    vd m;
    FD_EACH8(
        uint64x2_t bits = vaddq_u64(vreinterpretq_u64_f64(x.v[i]), vdupq_n_u64(0x3ff0000000000000 - half_root));
        e->v[i] = vsubq_f64(vcvtq_f64_u64(vshrq_n_u64(bits, 52)), vdupq_n_f64(1023.0));
        m.v[i] = vreinterpretq_f64_u64(vaddq_u64(vandq_u64(bits, vdupq_n_u64(0xfffffffffffff)), vdupq_n_u64(half_root)));)
    return m;
}

/* ---- 16-bit floats ---- */
static inline float32x4_t fd_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline float fd_f16_to_f32(uint16_t h) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0); }
static inline vf vf_load_f16(const uint16_t *p)
{
    vf r;
    FD_AT(0, float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p)); r.v[i] = vcvt_f32_f16(vget_low_f16(h)); r.v[i + 1] = vcvt_high_f32_f16(h);)
    FD_AT(2, float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p + 8)); r.v[i] = vcvt_f32_f16(vget_low_f16(h)); r.v[i + 1] = vcvt_high_f32_f16(h);)
    return r;
}
static inline void vf_store_f16(uint16_t *p, vf x) { FD_EACH(vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));) }
static inline vf vf_load_bf16(const uint16_t *p) FD_QUADS(vf, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)))

/* ---- integers ---- */
#define FD_UNSIGNED(a) vreinterpretq_u32_s32(a)
#define FD_SIGNED(a) vreinterpretq_s32_u32(a)
static inline vi vi_set1(int32_t a) FD_QUADS(vi, vdupq_n_s32(a))
static inline vi vi_load(const int32_t *p) FD_QUADS(vi, vld1q_s32(p + 4 * i))
static inline void vi_store(int32_t *p, vi x) { FD_EACH(vst1q_s32(p + 4 * i, x.v[i]);) }
static inline vi vi_add(vi x, vi y) FD_QUADS(vi, vaddq_s32(x.v[i], y.v[i]))
static inline vi vi_sub(vi x, vi y) FD_QUADS(vi, vsubq_s32(x.v[i], y.v[i]))
static inline vi vi_and(vi x, vi y) FD_QUADS(vi, vandq_s32(x.v[i], y.v[i]))
static inline vi vi_or(vi x, vi y) FD_QUADS(vi, vorrq_s32(x.v[i], y.v[i]))
static inline vi vi_xor(vi x, vi y) FD_QUADS(vi, veorq_s32(x.v[i], y.v[i]))
static inline vi vi_max(vi x, vi y) FD_QUADS(vi, vmaxq_s32(x.v[i], y.v[i]))
static inline vi vi_max_unsigned(vi x, vi y) FD_QUADS(vi, FD_SIGNED(vmaxq_u32(FD_UNSIGNED(x.v[i]), FD_UNSIGNED(y.v[i]))))
static inline vi vi_shl(vi x, int n) FD_QUADS(vi, FD_SIGNED(FD_UNSIGNED(x.v[i]) << n))
static inline vi vi_shr(vi x, int n) FD_QUADS(vi, FD_SIGNED(FD_UNSIGNED(x.v[i]) >> n))                                    /* logical */
static inline vi vi_mul_low(vi x, vi y) FD_QUADS(vi, vmulq_s32(x.v[i], y.v[i]))
static inline int32x4_t fd_mul_high(uint32x4_t x, uint32x4_t y)
{
    uint64x2_t low = vmull_u32(vget_low_u32(x), vget_low_u32(y)), high = vmull_high_u32(x, y);
    return FD_SIGNED(vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)));
}
static inline vi vi_mul_high(vi x, vi y) FD_QUADS(vi, fd_mul_high(FD_UNSIGNED(x.v[i]), FD_UNSIGNED(y.v[i])))                /* unsigned */
static inline int32_t vi_sum(vi x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3]))); }
static inline int32_t vi_largest(vi x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.v[0], x.v[1]), vmaxq_s32(x.v[2], x.v[3]))); }
static inline vi vi_iota(void)
{
    static const int32_t lanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vi_load(lanes);
}

/* ---- between floats and integers ---- */
static inline vf vf_from_int(vi x) FD_QUADS(vf, vcvtq_f32_s32(x.v[i]))
static inline vi vi_round(vf x) FD_QUADS(vi, vcvtnq_s32_f32(x.v[i]))                   /* NaN gives 0; what does not fit, the nearest int32 */
static inline vi vi_of_bits(vf x) FD_QUADS(vi, vreinterpretq_s32_f32(x.v[i]))
static inline vf vf_of_bits(vi x) FD_QUADS(vf, vreinterpretq_f32_s32(x.v[i]))

/* ---- truth ---- */
static inline vm vf_less(vf x, vf y) FD_QUADS(vm, vcltq_f32(x.v[i], y.v[i]))
static inline vm vf_equal(vf x, vf y) FD_QUADS(vm, vceqq_f32(x.v[i], y.v[i]))
static inline vm vi_less(vi x, vi y) FD_QUADS(vm, vcltq_s32(x.v[i], y.v[i]))
static inline vm vi_equal(vi x, vi y) FD_QUADS(vm, vceqq_s32(x.v[i], y.v[i]))
static inline uint32_t vm_bits(vm m)
{
    static const uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(m.v[0]), vreinterpretq_u16_u32(m.v[1]));
    uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(m.v[2]), vreinterpretq_u16_u32(m.v[3]));
    uint8x16_t bytes = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)), vld1q_u8(bit));
    return vaddv_u8(vget_low_u8(bytes)) | (uint32_t)vaddv_u8(vget_high_u8(bytes)) << 8;
}
static inline vf vf_select(vm m, vf x, vf y) FD_QUADS(vf, vbslq_f32(m.v[i], x.v[i], y.v[i]))
static inline vi vi_select(vm m, vi x, vi y) FD_QUADS(vi, vbslq_s32(m.v[i], x.v[i], y.v[i]))

static inline void vi_store_int8(int8_t *p, vi x)                       /* each lane fits */
{
    int16x8_t low = vuzp1q_s16(vreinterpretq_s16_s32(x.v[0]), vreinterpretq_s16_s32(x.v[1]));
    int16x8_t high = vuzp1q_s16(vreinterpretq_s16_s32(x.v[2]), vreinterpretq_s16_s32(x.v[3]));
    vst1q_s8(p, vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high)));
}
