/* packed.h - weights in tiles: 16 outputs in lanes, inputs in sequence, so that every output sums in one order.
 *
 * f32, f16, bf16:  [tile][input][16 outputs]
 * q8:              [tile][block] of { 8 groups x [16 outputs][4 codes] int8, [16] f16 scale }
 * q4:              [tile][block] of { 4 x [16 outputs][4] bytes, low nibble group g, high nibble group g + 4,
 *                                     [16] f16 scale, [16] f16 minimum }
 * A group is 4 inputs in sequence; a block is 32 inputs.  Outputs are padded with zeros to a multiple of 32.
 */
#ifndef FD_PACKED_H
#define FD_PACKED_H
enum { PACKED_Q8 = 8 * 64 + 2 * FD_LANES, PACKED_Q4 = 4 * 64 + 4 * FD_LANES };

static int64_t packed_tile_bytes(int format, int64_t inputs)
{
    switch (format) {
    case FD_F32: return inputs * FD_LANES * 4;
    case FD_F16: case FD_BF16: return inputs * FD_LANES * 2;
    case FD_Q8: return fd_ceil(inputs, FD_BLOCK) * PACKED_Q8;
    default: return fd_ceil(inputs, FD_BLOCK) * PACKED_Q4;
    }
}
static inline const char *packed_tile(const struct fd_weight *weight, int64_t tile)
{
    return (const char *)weight->packed + tile * packed_tile_bytes(weight->format, weight->inputs);
}
#endif
