/* quantize_rows.c - activations as int8: blocks of 32, scale = the largest magnitude / 127, half to even.
 *
 * Division, not multiplication by the inverse: it cannot overflow.  A block whose scale would be subnormal is zero.
 */
#pragma once
#include "../tile.h"

static int quantize_row(int64_t width, const float *x, int8_t *codes, float *scale, float *sum, int32_t *total)
{
    int finite = 1;
    for (int64_t b = 0; b < fd_ceil(width, FD_BLOCK); b++) {
        int64_t left = width - b * FD_BLOCK;
        vf low = vf_load_part(x + b * FD_BLOCK, left, 0.0f), high = vf_zero();
        if (left > FD_LANES) high = vf_load_part(x + b * FD_BLOCK + FD_LANES, left - FD_LANES, 0.0f);
        /* magnitudes order as their bits do, and NaN is above infinity */
        int32_t largest = vi_largest(vi_max(vi_of_bits(vf_abs(low)), vi_of_bits(vf_abs(high))));
        float magnitude;
        memcpy(&magnitude, &largest, 4);
        finite &= largest < 0x7f800000;
        float s = magnitude / 127.0f;
        if (!(s >= 0x1p-126f) || largest >= 0x7f800000) {
            memset(codes + b * FD_BLOCK, 0, FD_BLOCK);
            scale[b] = sum[b] = 0.0f;
            total[b] = 0;
            continue;
        }
        vi first = vi_round(vf_div(low, vf_set1(s))), second = vi_round(vf_div(high, vf_set1(s)));
        vi_store_int8(codes + b * FD_BLOCK, first);
        vi_store_int8(codes + b * FD_BLOCK + FD_LANES, second);
        int32_t count = vi_sum(vi_add(first, second));
        scale[b] = s;
        total[b] = count;
        sum[b] = s * (float)count;
    }
    return finite;
}

static int quantize_rows(int64_t rows, int64_t width, const float *x, int8_t *codes, float *scale, float *sum, int32_t *total)
{
    int64_t blocks = fd_ceil(width, FD_BLOCK);
    int finite = 1;
    for (int64_t i = 0; i < rows; i++)
        finite &= quantize_row(width, x + i * width, codes + i * blocks * FD_BLOCK, scale + i * blocks, sum + i * blocks,
                               total + i * blocks);
    return finite ? FD_OK : FD_NOT_FINITE;
}
