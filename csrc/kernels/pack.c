/* pack.c - weights in tiles: 16 outputs in lanes, inputs in sequence, so that every output sums in one order.
 *
 * f32, f16, bf16:  [tile][input][16 outputs]
 * q8:              [tile][block] of { 8 groups x [16 outputs][4 codes] int8, [16] f16 scale }
 * q4:              [tile][block] of { 4 x [16 outputs][4] bytes, low nibble group g, high nibble group g + 4,
 *                                     [16] f16 scale, [16] f16 minimum }
 * A group is 4 inputs in sequence; a block is 32 inputs.  Outputs are padded with zeros to a multiple of 32.
 */
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
static const char *packed_tile(const struct fd_weight *weight, int64_t tile)
{
    return (const char *)weight->packed + tile * packed_tile_bytes(weight->format, weight->inputs);
}

#ifdef FD_LEVEL_IS_SCALAR            /* bytes moved, nothing computed: one level does it for all */
/* From rows that lie `stride` units apart to lanes: in (lanes, units) -> out (units, 16), at any address.
 * 16 units of a row at a time: a cache line or less is read and 16 are written to, however far apart the rows lie. */
#define LANES_OF(size, name) \
    static void name(int64_t lanes, int64_t units, const char *in, int64_t stride, char *out) \
    { \
        for (int64_t begin = 0; begin < units; begin += 16) \
            for (int64_t lane = 0; lane < lanes; lane++) \
                for (int64_t unit = begin; unit < fd_min(begin + 16, units); unit++) \
                    memcpy(out + (unit * FD_LANES + lane) * size, in + (lane * stride + unit) * size, size); \
    }
LANES_OF(4, lanes_of_4)
LANES_OF(2, lanes_of_2)

static void pack_rows(int format, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale,
                      const uint16_t *minimum, void *packed, int64_t tile_begin, int64_t tile_end)
{
    int64_t blocks = fd_ceil(inputs, FD_BLOCK), bytes = packed_tile_bytes(format, inputs);
    int64_t groups = format == FD_Q8 ? 8 : 4;                /* 4 bytes of codes each, in a block */
    for (int64_t tile = tile_begin; tile < tile_end; tile++) {
        char *out = (char *)packed + tile * bytes;
        int64_t n = tile * FD_LANES, lanes = fd_min(outputs - n, FD_LANES);
        if (lanes < FD_LANES) memset(out, 0, (size_t)bytes);
        if (lanes <= 0) continue;
        if (format == FD_F32) lanes_of_4(lanes, inputs, (const char *)data + n * inputs * 4, inputs, out);
        else if (format == FD_F16 || format == FD_BF16) lanes_of_2(lanes, inputs, (const char *)data + n * inputs * 2, inputs, out);
        else for (int64_t b = n * blocks; b < (n + 1) * blocks; b++) {
            lanes_of_4(lanes, groups, (const char *)data + b * groups * 4, blocks * groups, out);
            out += groups * 4 * FD_LANES;
            lanes_of_2(lanes, 1, (const char *)(scale + b), blocks, out);
            out += 2 * FD_LANES;
            if (format == FD_Q8) continue;
            lanes_of_2(lanes, 1, (const char *)(minimum + b), blocks, out);
            out += 2 * FD_LANES;
        }
    }
}
#endif

/* Row n of the packed matrix, dequantised: (inputs,) floats and zeros up to the row stride. */
static void unpack_row(const struct fd_weight *weight, int64_t n, float *row)
{
    const char *tile = packed_tile(weight, n / FD_LANES);
    int64_t lane = n % FD_LANES, inputs = weight->inputs;
    for (int64_t k = inputs; k < fd_stride(inputs); k++) row[k] = 0.0f;
    for (int64_t k = 0; k < inputs; k++) {
        int64_t b = k / FD_BLOCK, group = k % FD_BLOCK / 4, at = lane * 4 + k % 4;
        uint32_t bits;
        switch (weight->format) {
        case FD_F32: row[k] = ((const float *)(const void *)tile)[k * FD_LANES + lane]; break;
        case FD_F16: row[k] = fd_f16_to_f32(((const uint16_t *)(const void *)tile)[k * FD_LANES + lane]); break;
        case FD_BF16:
            bits = (uint32_t)((const uint16_t *)(const void *)tile)[k * FD_LANES + lane] << 16;
            memcpy(&row[k], &bits, 4);
            break;
        case FD_Q8: {
            const char *block = tile + b * PACKED_Q8;
            const uint16_t *scale = (const uint16_t *)(const void *)(block + 512);
            row[k] = fd_f16_to_f32(scale[lane]) * (float)(int8_t)block[group * 64 + at];
            break;
        }
        default: {
            const char *block = tile + b * PACKED_Q4;
            const uint16_t *scale = (const uint16_t *)(const void *)(block + 256);
            uint8_t byte = (uint8_t)block[group % 4 * 64 + at];
            float code = (float)(group < 4 ? byte & 15 : byte >> 4);
            row[k] = fd_f16_to_f32(scale[lane]) * code + fd_f16_to_f32(scale[FD_LANES + lane]);
        }
        }
    }
}
