/* peak.c - how many multiply-adds a level can do: the loop of a linear with all data in the first cache.  A limit for the benches, not
 * a kernel: it computes nothing.  peak.py compiles it once a level, FD_WORDS being that level's words.
 *
 * A block is `rows` rows of 32 activations times 16 outputs x 32 weights, in the words of kernels/forward/linear.c; with `scales`, the
 * instructions that it spends once a block and row follow the dot products.  Unpacking weights is left out: rows share it.
 */
#include FD_WORDS
#include "kernels/tile.h"

#if defined(FD_LEVEL_IS_SCALAR)         /* FD_SHAPED is one body there: rows is no constant */
#define PEAK_UNROLL
#elif defined(__clang__)
#define PEAK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PEAK_UNROLL _Pragma("GCC unroll 16")
#endif
#define PEAK_ROWS PEAK_UNROLL for (int r = 0; r < rows; r++)

enum { PEAK_MOST_ROWS = 12 };
struct peak_data {                       /* zeros: no sum overflows, no float is subnormal */
    float w[FD_BLOCK * FD_LANES], x[PEAK_MOST_ROWS * FD_BLOCK], scale[PEAK_MOST_ROWS], sum[PEAK_MOST_ROWS];
    uint8_t codes[8 * 64];
    int8_t x_codes[PEAK_MOST_ROWS * FD_BLOCK];
    float out[PEAK_MOST_ROWS * FD_LANES];
    int32_t totals[PEAK_MOST_ROWS * FD_LANES];
};
/* The compiler must take the data to be new, and to be read. */
#define PEAK_OPAQUE(data) __asm__ volatile("" : : "r"(data) : "memory")

FD_SHAPED void peak_q4(const int rows, const int scales, struct peak_data *d, int64_t repeats)
{
    vs total[PEAK_MOST_ROWS];
    vf sum[PEAK_MOST_ROWS];
    PEAK_ROWS { total[r] = vs_q4_zero(); sum[r] = vf_zero(); }
    for (int64_t block = 0; block < repeats; block++) {
        PEAK_OPAQUE(d);
        if (scales) PEAK_ROWS total[r] = vs_q4_zero();
        PEAK_UNROLL
        for (int g = 0; g < 8; g++) {
            vb codes = vb_load_q8((const int8_t *)d->codes + g * 64);
            PEAK_ROWS total[r] = vs_q4_dot(total[r], codes, d->x_codes + r * FD_BLOCK + 4 * g);
        }
        if (scales) PEAK_ROWS {
            vf product = vf_mul(vf_load(d->w), vf_set1(d->scale[r]));
            sum[r] = vf_fma(vf_from_int(vs_q4_total(total[r])), product, sum[r]);
            sum[r] = vf_fma(vf_load(d->w + FD_LANES), vf_set1(d->sum[r]), sum[r]);
        }
    }
    PEAK_ROWS { vi_store(d->totals + r * FD_LANES, vs_q4_total(total[r])); vf_store(d->out + r * FD_LANES, sum[r]); }
    PEAK_OPAQUE(d);
}

FD_SHAPED void peak_q8(const int rows, const int scales, struct peak_data *d, int64_t repeats)
{
    vi total[PEAK_MOST_ROWS];
    vf sum[PEAK_MOST_ROWS];
    PEAK_ROWS { total[r] = vi_q8_start(0); sum[r] = vf_zero(); }
    for (int64_t block = 0; block < repeats; block++) {
        PEAK_OPAQUE(d);
        if (scales) PEAK_ROWS total[r] = vi_q8_start(d->totals[r]);
        PEAK_UNROLL
        for (int g = 0; g < 8; g++) {
            vb codes = vb_load_q8((const int8_t *)d->codes + g * 64);
            PEAK_ROWS total[r] = vi_q8_dot(total[r], codes, d->x_codes + r * FD_BLOCK + 4 * g);
        }
        if (scales) PEAK_ROWS {
            vf product = vf_mul(vf_load(d->w), vf_set1(d->scale[r]));
            sum[r] = vf_fma(vf_from_int(total[r]), product, sum[r]);
        }
    }
    PEAK_ROWS { vi_store(d->totals + r * FD_LANES, total[r]); vf_store(d->out + r * FD_LANES, sum[r]); }
    PEAK_OPAQUE(d);
}

FD_SHAPED void peak_float(const int rows, struct peak_data *d, int64_t repeats)
{
    vf sum[PEAK_MOST_ROWS];
    PEAK_ROWS sum[r] = vf_zero();
    for (int64_t block = 0; block < repeats; block++) {
        PEAK_OPAQUE(d);
        PEAK_UNROLL
        for (int k = 0; k < 8; k++) {
            vf w = vf_load(d->w + k * FD_LANES);
            PEAK_ROWS sum[r] = vf_fma(w, vf_set1(d->x[r * FD_BLOCK + k]), sum[r]);
        }
    }
    PEAK_ROWS vf_store(d->out + r * FD_LANES, sum[r]);
    PEAK_OPAQUE(d);
}

FD_SHAPED void peak_rows(const int rows, int format, int scales, struct peak_data *d, int64_t repeats)
{
    switch (format * 2 + (scales != 0)) {
    case FD_Q4 * 2: peak_q4(rows, 0, d, repeats); break;
    case FD_Q4 * 2 + 1: peak_q4(rows, 1, d, repeats); break;
    case FD_Q8 * 2: peak_q8(rows, 0, d, repeats); break;
    case FD_Q8 * 2 + 1: peak_q8(rows, 1, d, repeats); break;
    default: peak_float(rows, d, 4 * repeats);
    }
}

/* `repeats` blocks in a register tile of 4, 6, 8 or 12 rows; the multiply-adds done. */
__attribute__((visibility("default"))) int64_t peak(int format, int scales, int rows, int64_t repeats)
{
    _Alignas(64) struct peak_data d;
    memset(&d, 0, sizeof d);
    switch (rows) {
    case 4: peak_rows(4, format, scales, &d, repeats); break;
    case 6: peak_rows(6, format, scales, &d, repeats); break;
    case 8: peak_rows(8, format, scales, &d, repeats); break;
    case 12: peak_rows(12, format, scales, &d, repeats); break;
    default: return 0;
    }
    return repeats * rows * FD_LANES * FD_BLOCK;
}
#include "kernels/tile_end.h"
