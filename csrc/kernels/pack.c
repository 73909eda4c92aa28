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
static void pack_lane_q8(const int8_t *codes, int lane, char *block)
{
    for (int k = 0; k < FD_BLOCK; k++) block[k / 4 * 64 + lane * 4 + k % 4] = codes[k];
}
static void pack_lane_q4(const uint8_t *codes, int lane, char *block)       /* byte j: code j low, code j + 16 high */
{
    for (int j = 0; j < 16; j++) block[j / 4 * 64 + lane * 4 + j % 4] = (char)codes[j];
}
static void pack_rows(int format, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale,
                      const uint16_t *minimum, void *packed, int64_t tile_begin, int64_t tile_end)
{
    int64_t blocks = fd_ceil(inputs, FD_BLOCK), bytes = packed_tile_bytes(format, inputs);
    for (int64_t tile = tile_begin; tile < tile_end; tile++) {
        char *out = (char *)packed + tile * bytes;
        if ((tile + 1) * FD_LANES > outputs) memset(out, 0, (size_t)bytes);
        for (int lane = 0; lane < FD_LANES; lane++) {
            int64_t n = tile * FD_LANES + lane;
            if (n >= outputs) break;
            if (format == FD_F32) {
                const float *row = (const float *)data + n * inputs;
                for (int64_t k = 0; k < inputs; k++) ((float *)(void *)out)[k * FD_LANES + lane] = row[k];
            } else if (format == FD_F16 || format == FD_BF16) {
                const uint16_t *row = (const uint16_t *)data + n * inputs;
                for (int64_t k = 0; k < inputs; k++) ((uint16_t *)(void *)out)[k * FD_LANES + lane] = row[k];
            } else {
                for (int64_t b = 0; b < blocks; b++) {
                    char *block = out + b * (format == FD_Q8 ? PACKED_Q8 : PACKED_Q4);
                    if (format == FD_Q8) {
                        pack_lane_q8((const int8_t *)data + (n * blocks + b) * FD_BLOCK, lane, block);
                        ((uint16_t *)(void *)(block + 512))[lane] = scale[n * blocks + b];
                    } else {
                        pack_lane_q4((const uint8_t *)data + (n * blocks + b) * FD_BLOCK / 2, lane, block);
                        ((uint16_t *)(void *)(block + 256))[lane] = scale[n * blocks + b];
                        ((uint16_t *)(void *)(block + 256))[FD_LANES + lane] = minimum[n * blocks + b];
                    }
                }
            }
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
