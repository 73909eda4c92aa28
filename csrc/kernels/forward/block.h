/* block.h - the product of a block: total[r], lane i = the sum over 32 inputs of code i times x of row r, exact integers.
 *
 * codes: those of 16 outputs, as the level's layout has them; at: the block of the first row's group, `lane` that row's place in it, 0
 * where `rows` is not 1.  `rows` is a constant where these are inlined.  They are for 16x4, in words; a level whose weights lie otherwise,
 * or that multiplies other than row by row, defines FD_LAYOUT, block_q4 and block_q8 beside its words.
 */
#pragma once
#include "../tile.h"

/* Row r from `lane` on; groups are `blocks` apart. */
FD_INLINE const struct fd_block *block_group(const struct fd_block *at, int64_t blocks, int r) { return at + r / FD_GROUP * blocks; }
FD_INLINE const int8_t *block_row(const struct fd_block *at, int64_t blocks, int64_t lane, int r)
{
    return block_group(at, blocks, r)->codes[lane + r % FD_GROUP];
}

#if !defined(FD_OWN_ROWS)                   /* a level may want the codes of a group in another order */
FD_INLINE void block_store(struct fd_block *at, int64_t lane, vi low, vi high)
{
    vi_store_int8(at->codes[lane], low);
    vi_store_int8(at->codes[lane] + FD_LANES, high);
}
FD_INLINE void block_copy_codes(struct fd_block *to, int64_t lane, const struct fd_block *from, int64_t of)
{
    memcpy(to->codes[lane], from->codes[of], sizeof to->codes[lane]);
}
#endif

#if !defined(FD_LAYOUT)
#define FD_LAYOUT FD_16X4
FD_INLINE void block_q4(const int rows, const char *codes, const struct fd_block *at, int64_t blocks, int64_t lane, vi *total)
{
    vs sum[FD_ROW_TILE];
    FD_ROWS sum[r] = vs_q4_zero();
    FD_UNROLL
    for (int g = 0; g < 4; g++) {
        vb low, high;
        vb_load_q4((const uint8_t *)codes + g * 64, &low, &high);
        FD_ROWS {
            const int8_t *x4 = block_row(at, blocks, lane, r) + 4 * g;
            sum[r] = vs_q4_dot(sum[r], low, x4);
            sum[r] = vs_q4_dot(sum[r], high, x4 + 16);
        }
    }
    FD_ROWS total[r] = vs_q4_total(sum[r]);
}
FD_INLINE void block_q8(const int rows, const char *codes, const struct fd_block *at, int64_t blocks, int64_t lane, vi *total)
{
    FD_ROWS total[r] = vi_q8_start(block_group(at, blocks, r)->total[lane + r % FD_GROUP]);
    FD_UNROLL
    for (int g = 0; g < 8; g++) {
        vb four = vb_load_q8((const int8_t *)codes + g * 64);
        FD_ROWS total[r] = vi_q8_dot(total[r], four, block_row(at, blocks, lane, r) + 4 * g);
    }
}
#endif
