/* distance_gradient_real.h - distance_gradient.c for one kind of real. */

FD_INLINE vr NAME(gradient_term)(int metric, vr weight, vr here, vr there, vr sum)
{
    if (metric != FD_L1) return VR(fma)(weight, VR(sub)(here, there), sum);
    sum = VR(where_less)(there, here, VR(add)(sum, weight), sum);
    return VR(where_less)(here, there, VR(sub)(sum, weight), sum);
}

/* ---- many coordinates ---- */
/* weights (rows, m), x (rows, d), y (m, d), of which 16 times `columns` coordinates, or `width` where they are the last part of 16
 * -> out (rows, d).  rows, columns and part are constants where this is inlined. */
FD_INLINE void NAME(gradient_tile)(int metric, int rows, int columns, int part, int64_t width,
                                                                      int64_t m, int64_t d, const real *weights, const real *x,
                                                                      const real *y, real *out)
{
    vr here[REAL_ROWS / 2][GRADIENT_COLUMNS];
    double total[REAL_ROWS / 2][GRADIENT_COLUMNS][16] = {{{0}}};
    FD_ROWS FD_COLUMNS_OF_TILE here[r][c] = VR(load_part)(x + r * d + 16 * c, width, 0);
    for (int64_t begin = 0; begin < m; begin += SUMMED_POINTS) {
        vr sum[REAL_ROWS / 2][GRADIENT_COLUMNS];
        FD_ROWS FD_COLUMNS_OF_TILE sum[r][c] = VR(zero)();
        for (int64_t j = begin; j < fd_min(begin + SUMMED_POINTS, m); j++) {
            vr there[GRADIENT_COLUMNS];
            FD_COLUMNS_OF_TILE there[c] = part ? VR(load_part)(y + j * d, width, 0) : VR(load)(y + j * d + 16 * c);
            FD_ROWS {
                vr weight = VR(set1)(weights[r * m + j]);
                FD_COLUMNS_OF_TILE sum[r][c] = NAME(gradient_term)(metric, weight, here[r][c], there[c], sum[r][c]);
            }
        }
        FD_ROWS FD_COLUMNS_OF_TILE vd_store(total[r][c], vd_add(vd_load(total[r][c]), WIDE(sum[r][c])));
    }
    vd factor = vd_set1(metric == FD_SQEUCLIDEAN ? 2 : 1);
    FD_ROWS FD_COLUMNS_OF_TILE
            VR(store_part)(out + r * d + 16 * c, width, NARROW(vd_mul(vd_load(total[r][c]), factor)));
}
FD_INLINE void NAME(gradient_rows)(int metric, int rows, int64_t width, int64_t m, int64_t d,
                                                                      const real *weights, const real *x, const real *y, real *out)
{
    int64_t k = 0;
    for (; k + 16 * GRADIENT_COLUMNS <= width; k += 16 * GRADIENT_COLUMNS)
        NAME(gradient_tile)(metric, rows, GRADIENT_COLUMNS, 0, 16, m, d, weights, x + k, y + k, out + k);
    for (; k + 16 <= width; k += 16) NAME(gradient_tile)(metric, rows, 1, 0, 16, m, d, weights, x + k, y + k, out + k);
    if (k < width) NAME(gradient_tile)(metric, rows, 1, 1, width - k, m, d, weights, x + k, y + k, out + k);
}
FD_SHAPED void NAME(gradient_block)(int metric, int64_t rows, int64_t width, int64_t m, int64_t d,
                                                                       const real *weights, const real *x, const real *y, real *out)
{
    int64_t i = 0;
    for (; i + REAL_ROWS / 2 <= rows; i += REAL_ROWS / 2)
        NAME(gradient_rows)(metric, REAL_ROWS / 2, width, m, d, weights + i * m, x + i * d, y, out + i * d);
    for (; i < rows; i++) NAME(gradient_rows)(metric, 1, width, m, d, weights + i * m, x + i * d, y, out + i * d);
}
static void NAME(gradient_many)(struct gradient *g, int64_t task)
{
    int64_t n = g->n, m = g->m, d = g->d, blocks = fd_ceil(n, FD_POINTS), pieces = fd_ceil(d, FD_COORDINATES);
    int64_t i = task % blocks * FD_POINTS, k = task / blocks % pieces * FD_COORDINATES, batch = task / blocks / pieces;
    int64_t rows = fd_min(FD_POINTS, n - i), width = fd_min(FD_COORDINATES, d - k);
    const real *weights = (const real *)g->weights + (batch * n + i) * m, *x = (const real *)g->x + (batch * n + i) * d + k;
    const real *y = (const real *)g->y + batch * m * d + k;
    real *out = (real *)g->gradient + (batch * n + i) * d + k;
    if (!NAME(finite_rows)(rows, width, d, x) || !NAME(finite_rows)(m, width, d, y)) atomic_store(&g->bad, 1);
    switch (g->metric) {
    case FD_SQEUCLIDEAN: NAME(gradient_block)(FD_SQEUCLIDEAN, rows, width, m, d, weights, x, y, out); break;
    case FD_L1: NAME(gradient_block)(FD_L1, rows, width, m, d, weights, x, y, out); break;
    default: NAME(gradient_block)(FD_EUCLIDEAN, rows, width, m, d, weights, x, y, out); break;
    }
}

/* ---- few coordinates ---- */
/* weights (rows, m), x (rows, d), y in groups of 16 of d coordinates, of which `count` points -> total (rows, FD_FEW_SLOPES), to which
 * they are added */
FD_INLINE void NAME(gradient_sums)(int metric, int rows, int columns, int64_t count, int64_t m, int64_t d,
                                                                      const real *weights, const real *x, const real *y, double *total)
{
    vr sum[REAL_ROWS / 2][2], here[REAL_ROWS / 2][2];
    FD_ROWS FD_COLUMNS_OF_TILE {
        sum[r][c] = VR(zero)();
        here[r][c] = VR(set1)(x[r * d + c]);
    }
    for (int64_t j = 0; j < count; j += 16) {
        vr there[2];
        FD_COLUMNS_OF_TILE there[c] = VR(load)(y + j * d + 16 * c);
        FD_ROWS {
            vr weight = VR(load_part)(weights + r * m + j, count - j, 0);
            FD_COLUMNS_OF_TILE sum[r][c] = NAME(gradient_term)(metric, weight, here[r][c], there[c], sum[r][c]);
        }
    }
    FD_ROWS FD_COLUMNS_OF_TILE total[r * FD_FEW_SLOPES + c] += (double)VR(sum)(sum[r][c]);
}
FD_INLINE void NAME(gradient_points)(int metric, int rows, int64_t m, int64_t d, const real *weights,
                                                                        const real *x, const real *y, real *out)
{
    double total[REAL_ROWS / 2 * FD_FEW_SLOPES] = {0};
    for (int64_t j = 0; j < m; j += FD_COLUMNS) {
        int64_t count = fd_min(FD_COLUMNS, m - j), k = 0;
        for (; k + 2 <= d; k += 2)
            NAME(gradient_sums)(metric, rows, 2, count, m, d, weights + j, x + k, y + j * d + 16 * k, total + k);
        if (k < d) NAME(gradient_sums)(metric, rows, 1, count, m, d, weights + j, x + k, y + j * d + 16 * k, total + k);
    }
    FD_ROWS for (int64_t k = 0; k < d; k++) out[r * d + k] = (real)((metric == FD_SQEUCLIDEAN ? 2 : 1) * total[r * FD_FEW_SLOPES + k]);
}
FD_SHAPED void NAME(gradient_few_block)(int metric, int64_t rows, int64_t m, int64_t d,
                                                                           const real *weights, const real *x, const real *y, real *out)
{
    int64_t i = 0;
    for (; i + REAL_ROWS / 2 <= rows; i += REAL_ROWS / 2)
        NAME(gradient_points)(metric, REAL_ROWS / 2, m, d, weights + i * m, x + i * d, y, out + i * d);
    for (; i < rows; i++) NAME(gradient_points)(metric, 1, m, d, weights + i * m, x + i * d, y, out + i * d);
}
static void NAME(gradient_few)(struct gradient *g, int64_t task)
{
    int64_t n = g->n, m = g->m, d = g->d, blocks = fd_ceil(n, FD_POINTS), batch = task / blocks, i = task % blocks * FD_POINTS;
    int64_t rows = fd_min(FD_POINTS, n - i);
    const real *weights = (const real *)g->weights + (batch * n + i) * m, *x = (const real *)g->x + (batch * n + i) * d;
    const real *y = (const real *)g->groups + batch * d * fd_pad(m, 16);
    real *out = (real *)g->gradient + (batch * n + i) * d;
    if (!NAME(finite_rows)(1, rows * d, 0, x)) atomic_store(&g->bad, 1);
    switch (g->metric) {
    case FD_SQEUCLIDEAN: NAME(gradient_few_block)(FD_SQEUCLIDEAN, rows, m, d, weights, x, y, out); break;
    case FD_L1: NAME(gradient_few_block)(FD_L1, rows, m, d, weights, x, y, out); break;
    default: NAME(gradient_few_block)(FD_EUCLIDEAN, rows, m, d, weights, x, y, out); break;
    }
}

/* r of half the squared distances -> (r - <x, r> x) / length, in place; x, r (d,) */
static void NAME(gradient_across)(int64_t d, const real *x, double length, real *r)
{
    vd dot = vd_zero();
    for (int64_t k = 0; k < d; k += 16) dot = vd_fma(WIDE(VR(load_part)(x + k, d - k, 0)), WIDE(VR(load_part)(r + k, d - k, 0)), dot);
    vd along = vd_set1(vd_sum(dot));
    for (int64_t k = 0; k < d; k += 16) {
        vd across = vd_fnma(along, WIDE(VR(load_part)(x + k, d - k, 0)), WIDE(VR(load_part)(r + k, d - k, 0)));
        VR(store_part)(r + k, d - k, NARROW(vd_div(across, vd_set1(length))));
    }
}
static void NAME(gradient)(void *context, int64_t stage, int64_t task)
{
    struct gradient *g = context;
    int64_t n = g->n, m = g->m, d = g->d;
    if (stage == 0) {
        int64_t columns = fd_ceil(m, FD_COLUMNS), batch = task / columns, first = task % columns * FD_COLUMNS;
        int64_t count = fd_min(FD_COLUMNS, m - first);
        const real *y = (const real *)g->y + batch * m * d;
        NAME(group_points)(m, d, y, first, first + count, (real *)g->groups + batch * d * fd_pad(m, 16));
        if (!NAME(finite_rows)(1, count * d, 0, y + first * d)) atomic_store(&g->bad, 1);
    } else if (stage == 2) NAME(gradient_across)(d, (const real *)g->x + task * d, g->lengths[task], (real *)g->gradient + task * d);
    else {
        int64_t pieces = d < FD_FEW_SLOPES ? 1 : fd_ceil(d, FD_COORDINATES), blocks = fd_ceil(n, FD_POINTS);
        int64_t i = task % blocks * FD_POINTS, batch = task / blocks / pieces;
        if (task / blocks % pieces == 0
            && !NAME(finite_rows)(1, fd_min(FD_POINTS, n - i) * m, 0, (const real *)g->weights + (batch * n + i) * m))
            atomic_store(&g->bad, 1);
        if (d < FD_FEW_SLOPES) NAME(gradient_few)(g, task);
        else NAME(gradient_many)(g, task);
    }
}
