/* quantize_rows.c - activations as int8: blocks of 32, scale = the largest magnitude / 127, half to even.
 *
 * Division, not multiplication by the inverse: it cannot overflow.  A block whose scale would be subnormal is zero.
 */
#pragma once
#include "../tile.h"
#include "block.h"

struct quantized { vi codes[2]; float scale; int32_t total; };           /* a block of one row */

/* The first `left` of 32 numbers, zeros after them; 0 when one of them is not finite. */
static inline int quantize_block(const float *x, int64_t left, struct quantized *block)
{
    vf low = vf_load_part(x, left, 0.0f), high = left > FD_LANES ? vf_load_part(x + FD_LANES, left - FD_LANES, 0.0f) : vf_zero();
    /* magnitudes order as their bits do, and NaN is above infinity */
    int32_t largest = vi_largest(vi_max(vi_of_bits(vf_abs(low)), vi_of_bits(vf_abs(high))));
    float magnitude;
    memcpy(&magnitude, &largest, 4);
    float scale = magnitude / 127.0f;
    if (!(scale >= 0x1p-126f) || largest >= 0x7f800000) {
        *block = (struct quantized){{vi_set1(0), vi_set1(0)}, 0.0f, 0};
        return largest < 0x7f800000;
    }
    block->codes[0] = vi_round(vf_div(low, vf_set1(scale)));
    block->codes[1] = vi_round(vf_div(high, vf_set1(scale)));
    block->scale = scale;
    block->total = vi_sum(vi_add(block->codes[0], block->codes[1]));
    return 1;
}

static int quantize_row(int64_t width, const float *x, int64_t row, struct fd_block *blocks)
{
    int64_t count = fd_ceil(width, FD_BLOCK), lane = row % FD_GROUP;
    struct fd_block *at = blocks + row / FD_GROUP * count;
    int finite = 1;
    for (int64_t b = 0; b < count; b++, at++) {
        struct quantized block;
        finite &= quantize_block(x + b * FD_BLOCK, width - b * FD_BLOCK, &block);
        block_store(at, lane, block.codes[0], block.codes[1]);
        at->scale[lane] = block.scale;
        at->total[lane] = block.total;
        at->sum[lane] = block.scale * (float)block.total;
    }
    return finite;
}

static int quantize_rows(int64_t rows, int64_t width, const float *x, int8_t *codes, float *scale, float *sum, int32_t *total)
{
    int finite = 1;
    for (int64_t row = 0; row < rows; row++, x += width)
        for (int64_t at = 0; at < width; at += FD_BLOCK, codes += FD_BLOCK) {
            struct quantized block;
            finite &= quantize_block(x + at, width - at, &block);
            vi_store_int8(codes, block.codes[0]);
            vi_store_int8(codes + FD_LANES, block.codes[1]);
            *scale++ = block.scale;
            *sum++ = block.scale * (float)block.total;
            *total++ = block.total;
        }
    return finite ? FD_OK : FD_NOT_FINITE;
}
