/* pack.c - weights into tiles (packed.h): bytes moved, nothing computed. */
#include "packed.h"

/* From rows that lie `stride` units apart to lanes: in (lanes, units) -> out (units, 16), at any address.
 * 16 units of a row at a time: a cache line or less is read and 16 are written to, however far apart the rows lie. */
#define LANES_OF(size, name) \
    static inline __attribute__((always_inline)) void name(int64_t lanes, int64_t units, const char *in, int64_t stride, char *out) \
    { \
        for (int64_t begin = 0; begin < units; begin += 16) \
            for (int64_t lane = 0; lane < lanes; lane++) { \
                const char *from = in + (lane * stride + begin) * size; \
                char *to = out + (begin * FD_LANES + lane) * size; \
                int64_t unit = 0, end = fd_min(16, units - begin); \
                for (; unit + 4 <= end; unit += 4) { \
                    _Pragma("GCC unroll 4") \
                    for (int64_t u = unit; u < unit + 4; u++) memcpy(to + u * FD_LANES * size, from + u * size, size); \
                } \
                for (; unit < end; unit++) memcpy(to + unit * FD_LANES * size, from + unit * size, size); \
            } \
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

struct pack { int format; int64_t outputs, inputs; const void *data; const uint16_t *scale, *minimum; void *packed; };
static void pack_range(void *context, int64_t begin, int64_t end)
{
    const struct pack *p = context;
    pack_rows(p->format, p->outputs, p->inputs, p->data, p->scale, p->minimum, p->packed, begin, end);
}
int fd_pack(int format, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale, const uint16_t *minimum,
            void *packed, int threads)
{
    struct pack p = {format, outputs, inputs, data, scale, minimum, packed};
    fd_parallel_for(threads, fd_stride(outputs) / FD_LANES, FD_TASK_TILES, pack_range, &p);
    return FD_OK;
}
