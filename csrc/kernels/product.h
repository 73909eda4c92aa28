/* product.h - matrix products of floats: register tiles of rows times panels of 16 lanes, every element one sum in the order of k.
 *
 * c(r, lanes) = [c(r, lanes) +] a(r, 0) b(0, lanes) + a(r, 1) b(1, lanes) + ..: fused multiply-adds, one after another.  So an element
 * has the same bits however rows, lanes and k are cut, if c goes on from where the last cut left it.
 *
 * A tile is as many sums as registers hold: loads of a and b are shared by 12 rows x 2 panels, or 6 x 1 where a vf is two of 16 registers.
 */
#pragma once
#include "tile.h"

enum { PRODUCT_ROWS = FD_ROW_TILE == 8 ? 12 : 6, PRODUCT_PANELS = FD_ROW_TILE == 8 ? 2 : 1, PRODUCT_LANES = 32, PRODUCT_AHEAD = 8 };
enum product_start { PRODUCT_NEW, PRODUCT_GO_ON };       /* sums begin at 0; or go on from c */

#if defined(FD_LEVEL_IS_SCALAR)
#define PRODUCT_UNROLL
#elif defined(__clang__)
#define PRODUCT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PRODUCT_UNROLL _Pragma("GCC unroll 16")
#endif
#define PRODUCT_TILE(body) PRODUCT_UNROLL for (int r = 0; r < rows; r++) PRODUCT_UNROLL for (int p = 0; p < panels; p++) body

/* A side of a product: element (r, k) of a lies at a[r * row + k * step], panel p of b at b[p * row + k * step]; c's panels likewise. */
struct product_a { const float *at; int64_t row, step; };
struct product_b { const float *at; int64_t panel, step; };
struct product_c { float *at; int64_t row, panel; };

FD_SHAPED void product_tile(const int rows, const int panels, enum product_start start, int64_t depth, struct product_a a, struct product_b b,
                            struct product_c c)
{
    vf sum[PRODUCT_ROWS][PRODUCT_PANELS], bk[PRODUCT_PANELS];
    PRODUCT_TILE(sum[r][p] = start == PRODUCT_GO_ON ? vf_load(c.at + r * c.row + p * c.panel) : vf_zero();)
    const float *at[(PRODUCT_ROWS + 2) / 3];             /* of every third row: two more are addressed from there by one register */
    PRODUCT_UNROLL for (int r = 0; r < rows; r += 3) at[r / 3] = a.at + r * a.row;
    for (int64_t k = 0; k < depth; k++, b.at += b.step) {
        if (a.step != 1) __builtin_prefetch(at[0] + PRODUCT_AHEAD * a.step);
        else if (k % 16 == 0) PRODUCT_UNROLL for (int r = 0; r < rows; r++) __builtin_prefetch(at[r / 3] + r % 3 * a.row + 32);
        PRODUCT_UNROLL for (int p = 0; p < panels; p++) bk[p] = vf_load(b.at + p * b.panel);
        PRODUCT_UNROLL for (int r = 0; r < rows; r++) {
            vf ak = vf_set1(at[r / 3][r % 3 * a.row]);
            PRODUCT_UNROLL for (int p = 0; p < panels; p++) sum[r][p] = vf_fma(ak, bk[p], sum[r][p]);
        }
        PRODUCT_UNROLL for (int r = 0; r < rows; r += 3) at[r / 3] += a.step;
    }
    PRODUCT_TILE(vf_store(c.at + r * c.row + p * c.panel, sum[r][p]);)
}

/* Of any number of rows, and `count` panels, 1 or 2. */
FD_INLINE void product_panels(const int count, int64_t rows, enum product_start start, int64_t depth, struct product_a a, struct product_b b,
                              struct product_c c)
{
    const int panels = count < PRODUCT_PANELS ? count : PRODUCT_PANELS;
    for (int64_t left = rows; left > 0;) {
        int64_t n = left >= PRODUCT_ROWS ? PRODUCT_ROWS : left >= 8 && PRODUCT_ROWS > 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        struct product_b bp = b;
        struct product_c cp = c;
        for (int p = 0; p < count; p += panels, bp.at += panels * b.panel, cp.at += panels * c.panel)
            switch (n) {
            case 1: product_tile(1, panels, start, depth, a, bp, cp); break;
            case 2: product_tile(2, panels, start, depth, a, bp, cp); break;
            case 4: product_tile(4, panels, start, depth, a, bp, cp); break;
            case 8: product_tile(PRODUCT_ROWS > 8 ? 8 : 1, panels, start, depth, a, bp, cp); break;
            default: product_tile(PRODUCT_ROWS, panels, start, depth, a, bp, cp);
            }
        a.at += n * a.row;
        c.at += n * c.row;
        left -= n;
    }
}
static void product(int64_t rows, enum product_start start, int64_t depth, struct product_a a, struct product_b b, struct product_c c)
{
    product_panels(2, rows, start, depth, a, b, c);
}
/* Of one panel: where the second would be padding. */
static void product_narrow(int64_t rows, enum product_start start, int64_t depth, struct product_a a, struct product_b b, struct product_c c)
{
    product_panels(1, rows, start, depth, a, b, c);
}
