/* block.h - the product of a block: total[r], lane i = the sum over 32 inputs of code i times x of row r, exact integers.
 *
 * codes: those of 16 outputs, as the level's layout has them; x: rows `blocks` * 32 apart, x_total, the sums of x: `blocks` apart.
 * `rows` is a constant where these are inlined.  They are for 16x4, in words; a level whose weights lie otherwise, or that multiplies
 * other than row by row, defines FD_LAYOUT, block_q4 and block_q8 beside its words.
 */
#pragma once
#include "../tile.h"

#if !defined(FD_LAYOUT)
#define FD_LAYOUT FD_16X4
FD_INLINE void block_q4(const int rows, const char *codes, const int8_t *x, int64_t blocks, vi *total)
{
    vs sum[FD_ROW_TILE];
    FD_ROWS sum[r] = vs_q4_zero();
    FD_UNROLL
    for (int g = 0; g < 4; g++) {
        vb low, high;
        vb_load_q4((const uint8_t *)codes + g * 64, &low, &high);
        FD_ROWS {
            const int8_t *x4 = x + r * blocks * FD_BLOCK + 4 * g;
            sum[r] = vs_q4_dot(sum[r], low, x4);
            sum[r] = vs_q4_dot(sum[r], high, x4 + 16);
        }
    }
    FD_ROWS total[r] = vs_q4_total(sum[r]);
}
FD_INLINE void block_q8(const int rows, const char *codes, const int8_t *x, const int32_t *x_total, int64_t blocks, vi *total)
{
    FD_ROWS total[r] = vi_q8_start(x_total[r * blocks]);
    FD_UNROLL
    for (int g = 0; g < 8; g++) {
        vb four = vb_load_q8((const int8_t *)codes + g * 64);
        FD_ROWS total[r] = vi_q8_dot(total[r], four, x + r * blocks * FD_BLOCK + 4 * g);
    }
}
#endif
