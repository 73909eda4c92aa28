/* vec_scalar_pairs.h - plain C over weights of another layout: two rows times two outputs, 8 inputs deep, as AArch64's SMMLA.
 *
 * For tests/cross/run_layout.sh alone, and for whoever writes a level with a layout of its own: only with -DFD_TEST_LAYOUT it is one.
 */
#pragma once
#define FD_LEVEL scalar_pairs
#define FD_LAYOUT FD_8X8
#include "vec_scalar.h"
#include "kernels/tile.h"
#undef FD_PRODUCT_Q8
#undef FD_PRODUCT_Q4
#define FD_PRODUCT_Q8 "int8 pairs of rows"
#define FD_PRODUCT_Q4 "int8 pairs of rows"

/* codes [2][4][8 outputs][8]; of an odd number the last row is a pair by itself. */
static void pairs_block(int rows, const int8_t *codes, const struct fd_block *at, int64_t lane, vi *total)
{
    for (int r = 0; r < rows; r += 2) {
        const int8_t *first = at->codes[lane + r], *second = r + 1 < rows ? at->codes[lane + r + 1] : first;
        int32_t sums[2][16] = {{0}};
        for (int k = 0; k < 16 * 32; k++) {
            int output = k / 256 * 8 + k / 8 % 8, input = k % 256 / 64 * 8 + k % 8;
            sums[0][output] += first[input] * codes[k];
            sums[1][output] += second[input] * codes[k];
        }
        total[r] = vi_load(sums[0]);
        if (r + 1 < rows) total[r + 1] = vi_load(sums[1]);
    }
}
static void block_q8(int rows, const char *codes, const struct fd_block *at, int64_t blocks, int64_t lane, vi *total)
{
    pairs_block(rows, (const int8_t *)codes, at, lane, total);          /* FD_ROW_TILE rows are one group */
}
static void block_q4(int rows, const char *codes, const struct fd_block *at, int64_t blocks, int64_t lane, vi *total)
{
    int8_t wide[16 * 32];                   /* low halves of a panel's 128 bytes are its first 16 inputs */
    for (int k = 0; k < 16 * 16; k++) {
        int8_t *to = wide + k / 128 * 256 + k % 128;
        to[0] = (uint8_t)codes[k] & 15;
        to[128] = (uint8_t)codes[k] >> 4;
    }
    pairs_block(rows, wide, at, lane, total);
}
