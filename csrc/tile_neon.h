/* tile_neon.h - register tiles of q4 and q8 for the quads of vec_neon.h.
 *
 * A quad is 4 outputs.  32 registers hold the float sums and a block's totals of
 *
 *     1 or 2 rows x 4 quads: weights come from memory, are read once and fetched ahead;
 *     3 or 4 rows x 2 quads, one half of a tile after the other: loads and unpacking are shared by more rows;
 *     16 rows x 1 quad (FD_MANY_ROWS): the codes of a block stay in 8 registers while rows pass by.
 *
 * Instructions are few where loads are pairs: statements stand in the order in which they are to be issued, and gcc leaves them there
 * (-fno-schedule-insns: docs/numerics.md).  Counts: docs/arm.md.
 */
#pragma once
#if defined(FD_I8MM)
#define FD_LAYOUT FD_8X8
#define FD_OWN_ROWS
#else
#define FD_LAYOUT FD_16X4
#endif
#define FD_OWN_TILES
#include "vec_neon.h"
#include "kernels/forward/block.h"
#include "kernels/forward/linear_rows.h"
#include "kernels/forward/packed.h"
#include "kernels/tile.h"

#define FD_PRODUCT_FLOAT "fmla"
enum { NEON_AHEAD = 1024 };                 /* bytes, 300 ns at 3.4 GB/s; tiles lie one after another */
/* Statements for each row r, for each quad q.  Written out as FD_EACH, which they stand in: a macro cannot hold the pragma of a loop. */
#define NEON_AT(name, n, count, ...) { enum { name = n }; if (n < (count)) { __VA_ARGS__ } }
#define NEON_ROWS(...) NEON_AT(r, 0, rows, __VA_ARGS__) NEON_AT(r, 1, rows, __VA_ARGS__) NEON_AT(r, 2, rows, __VA_ARGS__) NEON_AT(r, 3, rows, __VA_ARGS__)
#define NEON_QUADS(...) NEON_AT(q, 0, quads, __VA_ARGS__) NEON_AT(q, 1, quads, __VA_ARGS__) NEON_AT(q, 2, quads, __VA_ARGS__) NEON_AT(q, 3, quads, __VA_ARGS__)

/* Zero made anew: gcc would keep one in a register and copy it to all totals. */
FD_INLINE int32x4_t neon_zero(void) { int32x4_t r; __asm__ volatile("movi %0.4s, 0" : "=w"(r)); return r; }
FD_INLINE int8x16_t neon_low(uint8x16_t codes) { return vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(15))); }
FD_INLINE int8x16_t neon_high(uint8x16_t codes) { return vreinterpretq_s8_u8(vshrq_n_u8(codes, 4)); }

/* Of a block, for the first row of a tile: its codes, and its scale, FD_GROUP before its sum.  All rows are of one group, whose lanes without
 * a row are read and dropped. */
struct neon_rows { const int8_t *x; const float *scale; };

/* total[r][q], lane i = the sum of a block for output 4 (first + q) + i. */
#if defined(FD_I8MM)
#define FD_PRODUCT_Q8 "int8 smmla"
#define FD_PRODUCT_Q4 "int8 smmla"
/* SMMLA multiplies 2 rows by 2 outputs, 8 inputs deep: a group's codes are [2 pairs][4 parts of 8 inputs][2 rows][8]. */
FD_INLINE int64_t neon_lane(int64_t lane) { return lane / 2 * 64 + lane % 2 * 8; }               /* where a row begins; its parts are 16 bytes apart */
FD_INLINE void block_store(struct fd_block *at, int64_t lane, vi low, vi high)
{
    int8_t codes[32];
    vi_store_int8(codes, low);
    vi_store_int8(codes + 16, high);
    for (int part = 0; part < 4; part++) memcpy((int8_t *)at->codes + neon_lane(lane) + 16 * part, codes + 8 * part, 8);
}
FD_INLINE void block_copy_codes(struct fd_block *to, int64_t lane, const struct fd_block *from, int64_t of)
{
    for (int part = 0; part < 4; part++)
        memcpy((int8_t *)to->codes + neon_lane(lane) + 16 * part, (const int8_t *)from->codes + neon_lane(of) + 16 * part, 8);
}
/* Quads are halves of a panel of 8 outputs, and a register of codes is 2 outputs: parts 64 bytes apart. */
FD_INLINE int64_t neon_panel(int64_t width, int quad) { return quad / 2 * 8 * width + quad % 2 * 32; }
struct neon_parts { int8x16_t at[4][2]; };                              /* [part of the inputs][2 outputs] of a quad */
FD_INLINE struct neon_parts neon_parts(const int format, const char *codes, int quad)
{
    struct neon_parts w;
    const uint8_t *from = (const uint8_t *)codes + neon_panel(format == FD_Q4 ? 16 : 32, quad);
#define NEON_CODES(part, output) vld1q_u8(from + 64 * (part) + 16 * (output))
    if (format == FD_Q4) {
        uint8x16_t bytes[4] = {NEON_CODES(0, 0), NEON_CODES(0, 1), NEON_CODES(1, 0), NEON_CODES(1, 1)};
        FD_EACH(w.at[i / 2][i % 2] = neon_low(bytes[i]); w.at[i / 2 + 2][i % 2] = neon_high(bytes[i]);)
    } else {
        FD_EACH(w.at[i][0] = vreinterpretq_s8_u8(NEON_CODES(i, 0)); w.at[i][1] = vreinterpretq_s8_u8(NEON_CODES(i, 1));)
    }
#undef NEON_CODES
    return w;
}
struct neon_two { int32x4_t row[2]; };
FD_INLINE struct neon_two neon_pair(struct neon_parts w, const int8_t *from)              /* totals of two rows */
{
    int32x4_t a = neon_zero(), b = neon_zero();                         /* outputs 0 and 1 of both rows, 2 and 3 */
    FD_UNROLL
    for (int i = 0; i < 4; i += 2) {                                    /* a pair of loads, then their products: few registers */
        int8x16_t x = vld1q_s8(from + 16 * i), y = vld1q_s8(from + 16 * i + 16);
        a = vmmlaq_s32(vmmlaq_s32(a, x, w.at[i][0]), y, w.at[i + 1][0]);
        b = vmmlaq_s32(vmmlaq_s32(b, x, w.at[i][1]), y, w.at[i + 1][1]);
    }
    int64x2_t one = vreinterpretq_s64_s32(a), other = vreinterpretq_s64_s32(b);
    return (struct neon_two){{vreinterpretq_s32_s64(vzip1q_s64(one, other)), vreinterpretq_s32_s64(vzip2q_s64(one, other))}};
}
FD_INLINE int32x4_t neon_single(struct neon_parts w, const int8_t *from)
{
    int32x4_t total = neon_zero();
    FD_EACH(                                /* {row, 0} times outputs 0 and 1, {0, row} times 2 and 3: no lane is added to twice */
        int8x16_t x = vcombine_s8(vld1_s8(from + 16 * i), vdup_n_s8(0));
        total = vmmlaq_s32(vmmlaq_s32(total, x, w.at[i][0]), vextq_s8(vdupq_n_s8(0), x, 8), w.at[i][1]);)
    return total;
}
FD_INLINE void neon_block(const int format, const int rows, const int quads, const int first, const char *codes, const struct neon_rows in,
                          int32x4_t (*total)[4])
{
    NEON_QUADS(
        struct neon_parts w = neon_parts(format, codes, first + q);
        if (rows == 1) total[0][q] = neon_single(w, in.x);
        else {
            struct neon_two two = neon_pair(w, in.x);
            total[0][q] = two.row[0];
            total[1][q] = two.row[1];
        }
        if (rows > 2) {
            struct neon_two two = neon_pair(w, in.x + 2 * FD_BLOCK);
            total[2][q] = two.row[0];
            if (rows > 3) total[3][q] = two.row[1];
        })
}
#elif defined(FD_DOT)
#define FD_PRODUCT_Q8 "int8 sdot"
#define FD_PRODUCT_Q4 "int8 sdot"
FD_INLINE void neon_add_q8(const int rows, const int quads, const char *codes, const int8x16_t *x, int32x4_t (*total)[4])     /* 16 inputs */
{
    FD_EACH(
        int8x16_t four[4];
        NEON_QUADS(four[q] = vld1q_s8((const int8_t *)codes + 64 * i + 16 * q);)
        NEON_QUADS(NEON_ROWS(total[r][q] = vdotq_laneq_s32(total[r][q], four[q], x[r], i);)))
}
FD_INLINE void neon_block(const int format, const int rows, const int quads, const int first, const char *codes, const struct neon_rows in,
                          int32x4_t (*total)[4])
{
    int8x16_t low_x[FD_ROW_TILE], high_x[FD_ROW_TILE];
    NEON_ROWS(low_x[r] = vld1q_s8(in.x + FD_BLOCK * r); high_x[r] = vld1q_s8(in.x + FD_BLOCK * r + 16);)
    NEON_ROWS(NEON_QUADS(total[r][q] = neon_zero();))
    codes += 16 * first;
    if (format == FD_Q8) {
        neon_add_q8(rows, quads, codes, low_x, total);
        neon_add_q8(rows, quads, codes + 256, high_x, total);
        return;
    }
    FD_EACH(
        uint8x16_t bytes[4];
        NEON_QUADS(bytes[q] = vld1q_u8((const uint8_t *)codes + 64 * i + 16 * q);)
        NEON_QUADS(
            int8x16_t low = neon_low(bytes[q]); int8x16_t high = neon_high(bytes[q]);
            NEON_ROWS(total[r][q] = vdotq_laneq_s32(total[r][q], low, low_x[r], i);)
            NEON_ROWS(total[r][q] = vdotq_laneq_s32(total[r][q], high, high_x[r], i);)))
}
#else
#define FD_PRODUCT_Q8 "int8 smlal"
#define FD_PRODUCT_Q4 "int8 smlal"
/* Inputs 4 i to 4 i + 3 of row r, over and over.  One row's codes stay in registers; more rows would crowd out their sums. */
#define NEON_FOUR(r, i) (rows == 1 ? vreinterpretq_s8_s32(vdupq_laneq_s32((i) < 4 ? low_x : high_x, (i) % 4)) : neon_four(in, r, 4 * (i)))
FD_INLINE int8x16_t neon_four(const struct neon_rows in, int r, int at)
{
    int32_t four;
    memcpy(&four, in.x + FD_BLOCK * r + at, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
/* Products as 16 bits, a lane an input of an output: 8 of 15 x 127 stay below 2^15, and 16 where two lanes are added. */
FD_INLINE void neon_block_q4(const int rows, const int quads, const int first, const char *codes, const struct neon_rows in,
                            int32x4_t (*total)[4])
{
    int16x8_t a[FD_ROW_TILE][4], b[FD_ROW_TILE][4];
    int32x4_t low_x = vreinterpretq_s32_s8(vld1q_s8(in.x)), high_x = vreinterpretq_s32_s8(vld1q_s8(in.x + 16));
    FD_EACH(
        uint8x16_t bytes[4];
        NEON_QUADS(bytes[q] = vld1q_u8((const uint8_t *)codes + 64 * i + 16 * (first + q));)
        NEON_ROWS(
            int8x16_t x = NEON_FOUR(r, i);
            NEON_QUADS(
                int8x16_t low = neon_low(bytes[q]);
                a[r][q] = i ? vmlal_s8(a[r][q], vget_low_s8(low), vget_low_s8(x)) : vmull_s8(vget_low_s8(low), vget_low_s8(x));
                b[r][q] = i ? vmlal_high_s8(b[r][q], low, x) : vmull_high_s8(low, x);)
            x = NEON_FOUR(r, i + 4);
            NEON_QUADS(
                int8x16_t high = neon_high(bytes[q]);
                a[r][q] = vmlal_s8(a[r][q], vget_low_s8(high), vget_low_s8(x));
                b[r][q] = vmlal_high_s8(b[r][q], high, x);)))
    NEON_ROWS(NEON_QUADS(total[r][q] = vpaddlq_s16(vpaddq_s16(a[r][q], b[r][q]));))
}
/* 2 of 128 x 127 stay below 2^15. */
FD_INLINE void neon_block_q8(const int rows, const int quads, const int first, const char *codes, const struct neon_rows in,
                            int32x4_t (*total)[4])
{
    int32x4_t a[FD_ROW_TILE][4], b[FD_ROW_TILE][4];
    int32x4_t low_x = vreinterpretq_s32_s8(vld1q_s8(in.x)), high_x = vreinterpretq_s32_s8(vld1q_s8(in.x + 16));
    FD_EACH(
        NEON_QUADS(
            const int8_t *at = (const int8_t *)codes + 128 * i + 16 * (first + q);
            int8x16_t one = vld1q_s8(at); int8x16_t other = vld1q_s8(at + 64);
            NEON_ROWS(
                int8x16_t x = NEON_FOUR(r, 2 * i); int8x16_t y = NEON_FOUR(r, 2 * i + 1);
                int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(one), vget_low_s8(x)), vget_low_s8(other), vget_low_s8(y));
                int16x8_t high = vmlal_high_s8(vmull_high_s8(one, x), other, y);
                a[r][q] = i ? vpadalq_s16(a[r][q], low) : vpaddlq_s16(low);
                b[r][q] = i ? vpadalq_s16(b[r][q], high) : vpaddlq_s16(high);)))
    NEON_ROWS(NEON_QUADS(total[r][q] = vpaddq_s32(a[r][q], b[r][q]);))
}
FD_INLINE void neon_block(const int format, const int rows, const int quads, const int first, const char *codes, const struct neon_rows in,
                          int32x4_t (*total)[4])
{
    if (format == FD_Q4) neon_block_q4(rows, quads, first, codes, in, total);
    else neon_block_q8(rows, quads, first, codes, in, total);
}
#endif

#if !defined(FD_I8MM)
FD_INLINE int64_t neon_lane(int64_t lane) { return FD_BLOCK * lane; }
#endif

/* sum <- fma(w_minimum, x_sum, fma(total, w_scale scale, sum)), of q8 without the minimum. */
FD_INLINE float32x4_t neon_scaled(const int format, float32x4_t sum, int32x4_t total, float32x4_t w_scale, float32x4_t w_minimum, float scale,
                                  float x_sum)
{
    sum = vfmaq_f32(sum, vcvtq_f32_s32(total), vmulq_n_f32(w_scale, scale));
    return format == FD_Q4 ? vfmaq_n_f32(sum, w_minimum, x_sum) : sum;
}
FD_INLINE void neon_load_f16(const int quads, const char *p, float32x4_t *x)
{
    float16x8_t two[2];
    FD_UNROLL for (int q = 0; q < quads; q += 2) two[q / 2] = vreinterpretq_f16_u16(vld1q_u16((const uint16_t *)(const void *)p + 4 * q));
    NEON_QUADS(x[q] = q % 2 ? vcvt_high_f32_f16(two[q / 2]) : vcvt_f32_f16(vget_low_f16(two[q / 2]));)
}

/* y of `rows` rows and of quads [first, first + quads). */
FD_INLINE void neon_tile(const int format, const int rows, const int quads, const int first, const struct linear_rows *of, int64_t row,
                         const char *tile, vf *y)
{
    const int codes = format == FD_Q4 ? CODES_Q4 : CODES_Q8, bytes = format == FD_Q4 ? PACKED_Q4 : PACKED_Q8;
    const struct fd_block *at = of->codes + row / FD_GROUP * of->blocks;
    const int64_t lane = rows == 1 ? row % FD_GROUP : 0;
    struct neon_rows in = {at->codes[0] + neon_lane(lane), at->scale + lane};
    float32x4_t sum[FD_ROW_TILE][4];
    NEON_ROWS(NEON_QUADS(sum[r][q] = vdupq_n_f32(0.0f);))
    for (const char *end = tile + of->count * bytes; tile < end; tile += bytes) {
        if (rows <= 2) { FD_FETCH(tile + NEON_AHEAD, bytes); }
        int32x4_t total[FD_ROW_TILE][4];
        neon_block(format, rows, quads, first, tile, in, total);
        float32x4_t w_scale[4], w_minimum[4], scale = vdupq_n_f32(0.0f), sums = scale;
        neon_load_f16(quads, tile + codes + 8 * first, w_scale);
        neon_load_f16(quads, tile + codes + (format == FD_Q4 ? 2 * FD_LANES : 0) + 8 * first, w_minimum);
        if (rows > 1) { scale = vld1q_f32(in.scale); sums = vld1q_f32(in.scale + FD_GROUP); }
        else { scale[0] = in.scale[0]; sums[0] = in.scale[FD_GROUP]; }
        NEON_ROWS(NEON_QUADS(sum[r][q] = neon_scaled(format, sum[r][q], total[r][q], w_scale[q], w_minimum[q], scale[r], sums[r]);))
        in.x += sizeof *at;
        in.scale += sizeof *at / sizeof *in.scale;
    }
    NEON_ROWS(NEON_QUADS(y[r].v[first + q] = sum[r][q];))
}
FD_INLINE void neon_tiles(const int format, const int rows, const struct linear_rows *in, int64_t row, const char *tile, vf *y)
{
    if (rows <= 2) { neon_tile(format, rows, 4, 0, in, row, tile, y); return; }
    neon_tile(format, rows, 2, 0, in, row, tile, y);
    neon_tile(format, rows, 2, 2, in, row, tile, y);
}
FD_INLINE void linear_tile_q4(const int rows, const struct linear_rows *in, int64_t row, const char *tile, const char *ahead, vf *y)
{
    neon_tiles(FD_Q4, rows, in, row, tile, y);
}
FD_INLINE void linear_tile_q8(const int rows, const struct linear_rows *in, int64_t row, const char *tile, const char *ahead, vf *y)
{
    neon_tiles(FD_Q8, rows, in, row, tile, y);
}

#if defined(FD_DOT)
#define FD_MANY_ROWS 16
/* y of 16 rows and of one quad. */
FD_INLINE void neon_many(const int format, const int quad, const struct linear_rows *of, int64_t row, const char *tile, vf *y)
{
    const int codes = format == FD_Q4 ? CODES_Q4 : CODES_Q8, bytes = format == FD_Q4 ? PACKED_Q4 : PACKED_Q8;
    const int64_t blocks = of->blocks;
    const struct fd_block *at = of->codes + row / FD_GROUP * blocks;
    float32x4_t sum[4][FD_GROUP];
    FD_UNROLL for (int g = 0; g < 4; g++) { FD_EACH(sum[g][i] = vdupq_n_f32(0.0f);) }
    for (const struct fd_block *end = at + blocks; at < end; at++, tile += bytes) {
#if defined(FD_I8MM)
        struct neon_parts w = neon_parts(format, tile, quad);
#else
        int8x16_t low[4], high[4];
        FD_EACH(
            uint8x16_t four = vld1q_u8((const uint8_t *)tile + 64 * i + 16 * quad);
            low[i] = format == FD_Q4 ? neon_low(four) : vreinterpretq_s8_u8(four);
            high[i] = format == FD_Q4 ? neon_high(four) : vld1q_s8((const int8_t *)tile + 256 + 64 * i + 16 * quad);)
#endif
        float32x4_t w_scale = fd_load_f16((const uint16_t *)(const void *)(tile + codes) + 4 * quad), w_minimum = w_scale;
        if (format == FD_Q4) w_minimum = fd_load_f16((const uint16_t *)(const void *)(tile + codes) + FD_LANES + 4 * quad);
        FD_UNROLL
        for (int g = 0; g < 4; g++) {
            const struct fd_block *group = at + g * blocks;
            float32x4_t scale = vld1q_f32(group->scale), sums = vld1q_f32(group->sum);
#if defined(FD_I8MM)
            FD_UNROLL
            for (int p = 0; p < 2; p++) {
                struct neon_two total = neon_pair(w, group->codes[2 * p]);
                FD_UNROLL
                for (int r = 2 * p; r < 2 * p + 2; r++)
                    sum[g][r] = neon_scaled(format, sum[g][r], total.row[r % 2], w_scale, w_minimum, scale[r], sums[r]);
            }
#else
            FD_UNROLL
            for (int r = 0; r < FD_GROUP; r++) {
                int8x16_t x_low = vld1q_s8(group->codes[r]), x_high = vld1q_s8(group->codes[r] + 16);
                int32x4_t total = neon_zero();
                FD_EACH(total = vdotq_laneq_s32(total, low[i], x_low, i);)
                FD_EACH(total = vdotq_laneq_s32(total, high[i], x_high, i);)
                sum[g][r] = neon_scaled(format, sum[g][r], total, w_scale, w_minimum, scale[r], sums[r]);
            }
#endif
        }
    }
    FD_UNROLL for (int g = 0; g < 4; g++) { FD_EACH(y[4 * g + i].v[quad] = sum[g][i];) }
}
static void linear_many(int format, const struct linear_rows *in, int64_t row, const char *tile, vf *y)
{
    if (format == FD_Q4) for (int quad = 0; quad < 4; quad++) neon_many(FD_Q4, quad, in, row, tile, y);
    else for (int quad = 0; quad < 4; quad++) neon_many(FD_Q8, quad, in, row, tile, y);
}
#endif
