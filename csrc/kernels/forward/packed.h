/* packed.h - weights in tiles of 16 outputs, so that every output sums in one order.
 *
 * f32, f16, bf16:  [tile][input][16 outputs]
 * q8:              [tile][block] of { 16 x 32 bytes of codes, [16] f16 scale }
 * q4:              [tile][block] of { 16 x 16 bytes of codes, [16] f16 scale, [16] f16 minimum }
 * A block is 32 inputs; of q4, byte j of an output holds code j low, code j + 16 high.  Outputs are padded with zeros to a multiple
 * of 32.
 *
 * How the bytes of a block's codes lie is the layout: [16 / outputs][width / bytes][outputs][bytes], so many outputs side by side, so
 * many bytes of each in sequence.  Floats lie alike in every layout.
 */
#pragma once
#include "../../base.h"

enum { FD_TASK_TILES = 4 };                                  /* tiles of one claimed piece of a linear */
enum { CODES_Q8 = 16 * 32, CODES_Q4 = 16 * 16 };             /* bytes of a block's codes, */
enum { PACKED_Q8 = CODES_Q8 + 2 * FD_LANES, PACKED_Q4 = CODES_Q4 + 4 * FD_LANES };           /* of a block */

static const struct packed_layout { int outputs, bytes; } packed_layouts[] = {[FD_16X4] = {16, 4}, [FD_8X8] = {8, 8}};

/* Where byte j of the `width` bytes of codes of output `lane` lies in a block. */
static inline int64_t packed_at(int layout, int64_t width, int64_t lane, int64_t j)
{
    const struct packed_layout l = packed_layouts[layout];
    return lane / l.outputs * l.outputs * width + (j / l.bytes * l.outputs + lane % l.outputs) * l.bytes + j % l.bytes;
}
static inline int64_t packed_tile_bytes(int format, int64_t inputs)
{
    switch (format) {
    case FD_F32: return inputs * FD_LANES * 4;
    case FD_F16: case FD_BF16: return inputs * FD_LANES * 2;
    case FD_Q8: return fd_ceil(inputs, FD_BLOCK) * PACKED_Q8;
    default: return fd_ceil(inputs, FD_BLOCK) * PACKED_Q4;
    }
}
static inline int packed_for(int layout, const struct fd_weight *weight)                      /* whether such a level can read it */
{
    return weight->format < FD_Q8 || weight->layout == layout;
}
static inline const char *packed_tile(const struct fd_weight *weight, int64_t tile)
{
    return (const char *)weight->packed + tile * packed_tile_bytes(weight->format, weight->inputs);
}
