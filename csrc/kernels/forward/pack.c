/* pack.c - weights into tiles (packed.h): bytes moved, nothing computed. */
#pragma once
#include <string.h>
#include "../../base.h"
#include "../../threads.h"
#include "packed.h"

/* From rows that lie `stride` units apart to panels: in (lanes, units) -> out (units, outputs), at any address; a unit is `size` bytes.
 * 16 units of a row at a time: a cache line or less is read and 16 are written to, however far apart the rows lie. */
#define PACK_INLINE static inline __attribute__((always_inline))
#define PANEL_OF(outputs, size) \
    PACK_INLINE void panel_##outputs##x##size(int64_t lanes, int64_t units, const char *in, int64_t stride, char *out) \
    { \
        for (int64_t begin = 0; begin < units; begin += 16) \
            for (int64_t lane = 0; lane < lanes; lane++) { \
                const char *from = in + (lane * stride + begin) * size; \
                char *to = out + (begin * outputs + lane) * size; \
                int64_t unit = 0, end = fd_min(16, units - begin); \
                for (; unit + 4 <= end; unit += 4) { \
                    _Pragma("GCC unroll 4") \
                    for (int64_t u = unit; u < unit + 4; u++) memcpy(to + u * outputs * size, from + u * size, size); \
                } \
                for (; unit < end; unit++) memcpy(to + unit * outputs * size, from + unit * size, size); \
            } \
    }
PANEL_OF(16, 2)
PANEL_OF(16, 4)
PANEL_OF(8, 8)

/* A tile of q8 or q4: codes, `width` bytes of an output's in a block, scales, and minima where there are any.  layout and width are
 * constants where this is inlined. */
PACK_INLINE void pack_blocks(const int layout, const int64_t width, int64_t lanes, int64_t blocks, const char *codes,
                             const uint16_t *scale, const uint16_t *minimum, char *out)
{
    for (int64_t b = 0; b < blocks; b++, codes += width, scale++) {
        if (layout == FD_16X4) panel_16x4(lanes, width / 4, codes, blocks * (width / 4), out);
        else for (int64_t n = 0; n < lanes; n += 8)
            panel_8x8(fd_min(8, lanes - n), width / 8, codes + n * blocks * width, blocks * (width / 8), out + n * width);
        out += width * FD_LANES;
        panel_16x2(lanes, 1, (const char *)scale, blocks, out);
        out += 2 * FD_LANES;
        if (!minimum) continue;
        panel_16x2(lanes, 1, (const char *)minimum++, blocks, out);
        out += 2 * FD_LANES;
    }
}

struct pack { int format, layout; int64_t outputs, inputs; const void *data; const uint16_t *scale, *minimum; void *packed; };
static void pack_range(void *context, int64_t tile_begin, int64_t tile_end)
{
    const struct pack *p = context;
    int64_t inputs = p->inputs, blocks = fd_ceil(inputs, FD_BLOCK), bytes = packed_tile_bytes(p->format, inputs);
    for (int64_t tile = tile_begin; tile < tile_end; tile++) {
        char *out = (char *)p->packed + tile * bytes;
        const char *data = p->data;
        int64_t n = tile * FD_LANES, lanes = fd_min(p->outputs - n, FD_LANES), at = n * blocks;
        if (lanes < FD_LANES) memset(out, 0, (size_t)bytes);
        if (lanes <= 0) continue;
        switch (p->format) {
        case FD_F32: panel_16x4(lanes, inputs, data + n * inputs * 4, inputs, out); break;
        case FD_F16: case FD_BF16: panel_16x2(lanes, inputs, data + n * inputs * 2, inputs, out); break;
        case FD_Q8:
            if (p->layout == FD_16X4) pack_blocks(FD_16X4, 32, lanes, blocks, data + at * 32, p->scale + at, NULL, out);
            else pack_blocks(FD_8X8, 32, lanes, blocks, data + at * 32, p->scale + at, NULL, out);
            break;
        default:
            if (p->layout == FD_16X4) pack_blocks(FD_16X4, 16, lanes, blocks, data + at * 16, p->scale + at, p->minimum + at, out);
            else pack_blocks(FD_8X8, 16, lanes, blocks, data + at * 16, p->scale + at, p->minimum + at, out);
        }
    }
}
int fd_pack(int format, int layout, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale,
            const uint16_t *minimum, void *packed, int threads)
{
    struct pack p = {format, layout, outputs, inputs, data, scale, minimum, packed};
    fd_parallel_for(threads, fd_stride(outputs) / FD_LANES, FD_TASK_TILES, pack_range, &p);
    return FD_OK;
}

int64_t fd_packed_bytes(int format, int64_t outputs, int64_t inputs)
{
    return fd_stride(outputs) / FD_LANES * packed_tile_bytes(format, inputs);
}
