/* unpack.c - rows of packed weights (packed.h). */
#pragma once
#include "../tile.h"
#include "block.h"
#include "packed.h"

/* Row n of the packed matrix, dequantised: (inputs,) floats and zeros up to the row stride. */
static void unpack_row(const struct fd_weight *weight, int64_t n, float *row)
{
    const char *tile = packed_tile(weight, n / FD_LANES);
    int64_t lane = n % FD_LANES, inputs = weight->inputs;
    for (int64_t k = inputs; k < fd_stride(inputs); k++) row[k] = 0.0f;
    for (int64_t k = 0; k < inputs; k++) {
        int64_t b = k / FD_BLOCK, i = k % FD_BLOCK;
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
            const uint16_t *scale = (const uint16_t *)(const void *)(block + CODES_Q8);
            row[k] = fd_f16_to_f32(scale[lane]) * (float)(int8_t)block[packed_at(FD_LAYOUT, 32, lane, i)];
            break;
        }
        default: {
            const char *block = tile + b * PACKED_Q4;
            const uint16_t *scale = (const uint16_t *)(const void *)(block + CODES_Q4);
            uint8_t byte = (uint8_t)block[packed_at(FD_LAYOUT, 16, lane, i % 16)];
            float code = (float)(i < 16 ? byte & 15 : byte >> 4);
            row[k] = fd_f16_to_f32(scale[lane]) * code + fd_f16_to_f32(scale[FD_LANES + lane]);
        }
        }
    }
}
