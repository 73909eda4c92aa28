/* tile_neon.h - blocks and register tiles of q4 and q8 for the quads of vec_neon.h.
 *
 * 32 registers hold 2 rows x 16 outputs or 4 rows x 8, each with a float sum and a block's total.  So a tile of 16 outputs is either
 * read once, for one row or two, or one half after the other.
 */
#pragma once
#include "kernels/forward/linear_rows.h"
#include "kernels/forward/packed.h"
#include "kernels/tile.h"

#define FD_LAYOUT FD_16X4
#define FD_OWN_TILES
#define FD_PRODUCT_FLOAT "fmla"
#define NEON_QUADS FD_UNROLL for (int q = 0; q < quads; q++)

#if defined(FD_DOT)
/* total[r][q] = the sum of a block, of outputs 4 q to 4 q + 3.  Codes of 4 inputs are a lane, their x a lane of a register. */
#define FD_PRODUCT_Q8 "int8 sdot"
#define FD_PRODUCT_Q4 "int8 sdot"
FD_INLINE void neon_block_q4(const int rows, const int quads, const char *codes, const int8_t *x, int64_t stride, int32x4_t (*total)[4])
{
    int8x16_t x_low[FD_ROW_TILE], x_high[FD_ROW_TILE];
    FD_ROWS { x_low[r] = vld1q_s8(x + r * stride); x_high[r] = vld1q_s8(x + r * stride + 16); }
    FD_ROWS NEON_QUADS total[r][q] = vdupq_n_s32(0);
    FD_EACH(
        NEON_QUADS {
            uint8x16_t bytes = vld1q_u8((const uint8_t *)codes + 64 * i + 16 * q);
            int8x16_t low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), high = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
            FD_ROWS total[r][q] = vdotq_laneq_s32(total[r][q], low, x_low[r], i);
            FD_ROWS total[r][q] = vdotq_laneq_s32(total[r][q], high, x_high[r], i);
        })
}
FD_INLINE void neon_block_q8(const int rows, const int quads, const char *codes, const int8_t *x, int64_t stride, int32x4_t (*total)[4])
{
    int8x16_t x_part[FD_ROW_TILE];
    FD_ROWS NEON_QUADS total[r][q] = vdupq_n_s32(0);
    FD_UNROLL
    for (int part = 0; part < 2; part++) {
        FD_ROWS x_part[r] = vld1q_s8(x + r * stride + 16 * part);
        FD_EACH(
            NEON_QUADS {
                int8x16_t four = vld1q_s8((const int8_t *)codes + 256 * part + 64 * i + 16 * q);
                FD_ROWS total[r][q] = vdotq_laneq_s32(total[r][q], four, x_part[r], i);
            })
    }
}
#endif

/* 4 quads of sums a row.  `first` is the first quad, in a whole tile. */
FD_INLINE void neon_load_f16(const int quads, const char *p, float32x4_t *x)
{
    FD_UNROLL
    for (int q = 0; q < quads; q += 2) {
        float16x8_t h = vreinterpretq_f16_u16(vld1q_u16((const uint16_t *)(const void *)p + 4 * q));
        x[q] = vcvt_f32_f16(vget_low_f16(h));
        x[q + 1] = vcvt_high_f32_f16(h);
    }
}
FD_INLINE void neon_tile_q4(const int rows, const int quads, int first, const struct linear_rows *in, int64_t row, const char *tile,
                            const char *ahead, vf *y)
{
    float32x4_t sum[FD_ROW_TILE][4];
    const int8_t *x = in->codes.codes + row * in->blocks * FD_BLOCK;
    const float *scale = in->codes.scale + row * in->blocks, *sums = in->codes.sum + row * in->blocks;
    FD_ROWS NEON_QUADS sum[r][q] = vdupq_n_f32(0.0f);
    for (int64_t b = 0; b < in->blocks; b++, tile += PACKED_Q4, ahead += PACKED_Q4, x += FD_BLOCK) {
        if (quads == 4) FD_FETCH(ahead, PACKED_Q4);
        int32x4_t total[FD_ROW_TILE][4];
        float32x4_t w_scale[4], w_minimum[4];
        neon_block_q4(rows, quads, tile + 16 * first, x, in->blocks * FD_BLOCK, total);
        neon_load_f16(quads, tile + CODES_Q4 + 8 * first, w_scale);
        neon_load_f16(quads, tile + CODES_Q4 + 2 * FD_LANES + 8 * first, w_minimum);
        FD_ROWS NEON_QUADS {
            float32x4_t product = vmulq_n_f32(w_scale[q], scale[r * in->blocks + b]);
            sum[r][q] = vfmaq_f32(sum[r][q], vcvtq_f32_s32(total[r][q]), product);
            sum[r][q] = vfmaq_n_f32(sum[r][q], w_minimum[q], sums[r * in->blocks + b]);
        }
    }
    FD_ROWS NEON_QUADS y[r].v[first + q] = sum[r][q];
}
FD_INLINE void neon_tile_q8(const int rows, const int quads, int first, const struct linear_rows *in, int64_t row, const char *tile,
                            const char *ahead, vf *y)
{
    float32x4_t sum[FD_ROW_TILE][4];
    const int8_t *x = in->codes.codes + row * in->blocks * FD_BLOCK;
    const float *scale = in->codes.scale + row * in->blocks;
    FD_ROWS NEON_QUADS sum[r][q] = vdupq_n_f32(0.0f);
    for (int64_t b = 0; b < in->blocks; b++, tile += PACKED_Q8, ahead += PACKED_Q8, x += FD_BLOCK) {
        if (quads == 4) FD_FETCH(ahead, PACKED_Q8);
        int32x4_t total[FD_ROW_TILE][4];
        float32x4_t w_scale[4];
        neon_block_q8(rows, quads, tile + 16 * first, x, in->blocks * FD_BLOCK, total);
        neon_load_f16(quads, tile + CODES_Q8 + 8 * first, w_scale);
        FD_ROWS NEON_QUADS {
            float32x4_t product = vmulq_n_f32(w_scale[q], scale[r * in->blocks + b]);
            sum[r][q] = vfmaq_f32(sum[r][q], vcvtq_f32_s32(total[r][q]), product);
        }
    }
    FD_ROWS NEON_QUADS y[r].v[first + q] = sum[r][q];
}
#define NEON_TILE(format) \
    FD_INLINE void linear_tile_##format(const int rows, const struct linear_rows *in, int64_t row, const char *tile, const char *ahead, vf *y) \
    { \
        if (rows <= 2) { neon_tile_##format(rows, 4, 0, in, row, tile, ahead, y); return; } \
        neon_tile_##format(rows, 2, 0, in, row, tile, ahead, y); \
        neon_tile_##format(rows, 2, 2, in, row, tile, ahead, y); \
    }
NEON_TILE(q4)
NEON_TILE(q8)
