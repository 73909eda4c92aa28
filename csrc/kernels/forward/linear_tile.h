/* linear_tile.h - a register tile of a linear: 16 outputs x up to FD_ROW_TILE rows, inputs in sequence; linear.c says in which order
 * an output is summed.
 *
 * `rows` is a constant in each copy, so the arrays are registers (scalar: tile.h).  `tile` are the packed weights of 16 outputs; `ahead`
 * is what is fetched meanwhile, `tile` itself where nothing has to be.  A level whose registers hold another shape defines
 * FD_OWN_TILES and its own linear_tile_q4 and linear_tile_q8: tile_neon.h.
 */
#pragma once
#include "../tile.h"
#include "block.h"
#include "linear_rows.h"
#include "packed.h"

#if !defined(FD_MANY_ROWS)                  /* a level may have a tile of many rows: linear_many, of q4 and q8 */
#define FD_MANY_ROWS FD_ROW_TILE
static inline void linear_many(int format, const struct linear_rows *in, int64_t row, const char *tile, vf *y) {}
#endif

#if !defined(FD_OWN_TILES)
FD_SHAPED void linear_tile_q4(const int rows, const struct linear_rows *in, int64_t row, const char *tile, const char *ahead, vf *y)
{
    vf sum[FD_ROW_TILE];
    const int64_t blocks = in->blocks, lane = rows == 1 ? row % FD_GROUP : 0;
    const struct fd_block *at = in->codes + row / FD_GROUP * blocks;
    FD_ROWS sum[r] = vf_zero();
    for (const struct fd_block *end = at + in->count; at < end; at++, tile += PACKED_Q4, ahead += PACKED_Q4) {
        FD_FETCH(ahead, PACKED_Q4);
        vi total[FD_ROW_TILE];
        block_q4(rows, tile, at, blocks, lane, total);
        vf w_scale = vf_load_f16((const uint16_t *)(const void *)(tile + CODES_Q4));
        vf w_minimum = vf_load_f16((const uint16_t *)(const void *)(tile + CODES_Q4) + FD_LANES);
        FD_ROWS {
            const struct fd_block *group = block_group(at, blocks, r);
            vf product = vf_mul(w_scale, vf_set1(group->scale[lane + r % FD_GROUP]));
            sum[r] = vf_fma(vf_from_int(total[r]), product, sum[r]);
            sum[r] = vf_fma(w_minimum, vf_set1(group->sum[lane + r % FD_GROUP]), sum[r]);
        }
    }
    FD_ROWS y[r] = sum[r];
}

FD_SHAPED void linear_tile_q8(const int rows, const struct linear_rows *in, int64_t row, const char *tile, const char *ahead, vf *y)
{
    vf sum[FD_ROW_TILE];
    const int64_t blocks = in->blocks, lane = rows == 1 ? row % FD_GROUP : 0;
    const struct fd_block *at = in->codes + row / FD_GROUP * blocks;
    FD_ROWS sum[r] = vf_zero();
    for (const struct fd_block *end = at + in->count; at < end; at++, tile += PACKED_Q8, ahead += PACKED_Q8) {
        FD_FETCH(ahead, PACKED_Q8);
        vi total[FD_ROW_TILE];
        block_q8(rows, tile, at, blocks, lane, total);
        vf w_scale = vf_load_f16((const uint16_t *)(const void *)(tile + CODES_Q8));
        FD_ROWS {
            vf product = vf_mul(w_scale, vf_set1(block_group(at, blocks, r)->scale[lane + r % FD_GROUP]));
            sum[r] = vf_fma(vf_from_int(total[r]), product, sum[r]);
        }
    }
    FD_ROWS y[r] = sum[r];
}
#endif

FD_SHAPED void linear_tile_float(const int rows, const int format, const struct linear_rows *in, int64_t row, const char *tile,
                                 const char *ahead, int64_t inputs, vf *y)
{
    vf sum[FD_ROW_TILE];
    const float *x = in->x + row * in->x_stride;
    FD_ROWS sum[r] = vf_zero();
    const int bytes = (format == FD_F32 ? 4 : 2) * FD_LANES;
    for (int64_t k = 0; k < inputs; k++, ahead += bytes) {
        FD_FETCH(ahead, bytes);
        vf w = format == FD_F32 ? vf_load((const float *)(const void *)tile + k * FD_LANES)
             : format == FD_F16 ? vf_load_f16((const uint16_t *)(const void *)tile + k * FD_LANES)
                                : vf_load_bf16((const uint16_t *)(const void *)tile + k * FD_LANES);
        FD_ROWS sum[r] = vf_fma(w, vf_set1(x[r * in->x_stride + k]), sum[r]);
    }
    FD_ROWS y[r] = sum[r];
}
