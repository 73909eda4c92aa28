/* pairwise_distance_real.h - pairwise_distance.c for one kind of real. */

/* Whether `width` coordinates of each of the rows of x (rows, d) are finite: NaN and infinities times 0 are NaN. */
static int NAME(finite_rows)(int64_t rows, int64_t width, int64_t d, const real *x)
{
    vr sum = VR(zero)();
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < width; k += 16) sum = VR(fma)(VR(load_part)(x + i * d + k, width - k, 0), VR(zero)(), sum);
    return finite_sum(VR(sum)(sum));
}

/* ---- few coordinates ---- */
/* y (m, d) -> groups (m padded / 16, d, 16), points begin .. end of them and zeros behind the last one */
static void NAME(group_points)(int64_t m, int64_t d, const real *y, int64_t begin, int64_t end, real *groups)
{
    int64_t padded = end == m ? fd_pad(m, 16) : end;
    for (int64_t j = begin; j < padded; j++)
        for (int64_t k = 0; k < d; k++) groups[(j / 16 * d + k) * 16 + j % 16] = j < m ? y[j * d + k] : 0;
}
static void NAME(pairwise_few)(void *context, int64_t stage, int64_t task)
{
    struct pairwise *p = context;
    int64_t n = p->n, m = p->m, d = p->d, stride = fd_pad(m, 16), columns = fd_ceil(m, FD_COLUMNS);
    int64_t first = task % columns * FD_COLUMNS, count = fd_min(FD_COLUMNS, m - first);
    task /= columns;
    if (stage == 0) {
        const real *y = (const real *)p->y + task * m * d;
        NAME(group_points)(m, d, y, first, first + count, (real *)p->workspace + task * d * stride);
        if (!NAME(finite_rows)(1, count * d, 0, y + first * d)) atomic_store(&p->bad, 1);
        return;
    }
    int64_t blocks = fd_ceil(n, FD_POINTS), batch = task / blocks, begin = task % blocks * FD_POINTS, end = fd_min(begin + FD_POINTS, n);
    const real *x = (const real *)p->x + batch * n * d, *y = (const real *)p->workspace + (batch * stride + first) * d;
    real *out = (real *)p->distances + batch * n * m + first, tile[REAL_ROWS * FD_COLUMNS];
    int64_t padded = fd_pad(count, 16);
    if (!NAME(finite_rows)(1, (end - begin) * d, 0, x + begin * d)) atomic_store(&p->bad, 1);
    for (int64_t i = begin; i < end; i += REAL_ROWS) {
        int64_t rows = fd_min(REAL_ROWS, end - i);
        NAME(distance_rows)(p->metric, rows, d, x + i * d, padded, y, tile);
        for (int64_t r = 0; r < rows; r++) memcpy(out + (i + r) * m, tile + r * padded, (size_t)count * sizeof *out);
    }
}

/* ---- many coordinates ---- */
FD_INLINE vr NAME(pair_term)(int metric, vr here, vr there, vr sum)
{
    if (metric == FD_COSINE) return VR(fma)(here, there, sum);
    vr apart = VR(sub)(here, there);
    return metric == FD_L1 ? VR(add)(sum, VR(abs)(apart)) : VR(fma)(apart, apart, sum);
}
/* Sums over `width` coordinates of x (rows, d) and y (columns, d) -> out (rows, m); rows and columns are constants where this is inlined,
 * so the arrays are registers. */
FD_INLINE void NAME(pair_tile)(int metric, int rows, int columns, int64_t width, int64_t d,
                                                                  const real *x, const real *y, int64_t m, real *out)
{
    vr sum[PAIR_ROWS][REAL_ROWS / 2], there[REAL_ROWS / 2];
    FD_ROWS FD_COLUMNS_OF_TILE sum[r][c] = VR(zero)();
    int64_t k = 0;
    for (; k + 16 <= width; k += 16) {
        FD_COLUMNS_OF_TILE there[c] = VR(load)(y + c * d + k);
        FD_ROWS {
            vr here = VR(load)(x + r * d + k);
            FD_COLUMNS_OF_TILE sum[r][c] = NAME(pair_term)(metric, here, there[c], sum[r][c]);
        }
    }
    if (k < width) {
        FD_COLUMNS_OF_TILE there[c] = VR(load_part)(y + c * d + k, width - k, 0);
        FD_ROWS {
            vr here = VR(load_part)(x + r * d + k, width - k, 0);
            FD_COLUMNS_OF_TILE sum[r][c] = NAME(pair_term)(metric, here, there[c], sum[r][c]);
        }
    }
    FD_ROWS FD_COLUMNS_OF_TILE out[r * m + c] = VR(sum)(sum[r][c]);
}
FD_SHAPED void NAME(pair_block)(int metric, int64_t rows, int64_t columns, int64_t width, int64_t d,
                                                                   const real *x, const real *y, int64_t m, real *out)
{
    int64_t i = 0;
#define FD_PAIRS(rows, columns) NAME(pair_tile)(metric, rows, columns, width, d, x + i * d, y + j * d, m, out + i * m + j)
    for (; i + PAIR_ROWS <= rows; i += PAIR_ROWS) {
        int64_t j = 0;
        for (; j + REAL_ROWS / 2 <= columns; j += REAL_ROWS / 2) FD_PAIRS(PAIR_ROWS, REAL_ROWS / 2);
        for (; j < columns; j++) FD_PAIRS(PAIR_ROWS, 1);
    }
    for (; i < rows; i++) {
        int64_t j = 0;
        for (; j + REAL_ROWS / 2 <= columns; j += REAL_ROWS / 2) FD_PAIRS(1, REAL_ROWS / 2);
        for (; j < columns; j++) FD_PAIRS(1, 1);
    }
#undef FD_PAIRS
}
static void NAME(pairwise_many)(void *context, int64_t stage, int64_t task)
{
    struct pairwise *p = context;
    int64_t n = p->n, m = p->m, d = p->d, pieces = fd_ceil(d, FD_COORDINATES);
    real *sums = p->workspace;
    if (stage == 0) {
        int64_t row_blocks = fd_ceil(n, FD_POINTS), column_blocks = fd_ceil(m, FD_POINTS);
        int64_t i = task % row_blocks * FD_POINTS, j = task / row_blocks % column_blocks * FD_POINTS;
        int64_t piece = task / row_blocks / column_blocks, k = piece % pieces * FD_COORDINATES;
        int64_t rows = fd_min(FD_POINTS, n - i), columns = fd_min(FD_POINTS, m - j), width = fd_min(FD_COORDINATES, d - k);
        int64_t batch = piece / pieces;
        const real *x = (const real *)p->x + (batch * n + i) * d + k, *y = (const real *)p->y + (batch * m + j) * d + k;
        real *out = sums + (piece * n + i) * m + j;
        if (!NAME(finite_rows)(rows, width, d, x) || !NAME(finite_rows)(columns, width, d, y)) atomic_store(&p->bad, 1);
        switch (p->metric) {
        case FD_L1: NAME(pair_block)(FD_L1, rows, columns, width, d, x, y, m, out); break;
        case FD_COSINE: NAME(pair_block)(FD_COSINE, rows, columns, width, d, x, y, m, out); break;
        default: NAME(pair_block)(FD_SQEUCLIDEAN, rows, columns, width, d, x, y, m, out); break;
        }
        return;
    }
    int64_t blocks = fd_ceil(n, MERGED_ROWS), batch = task / blocks, begin = task % blocks * MERGED_ROWS;
    int64_t count = (fd_min(begin + MERGED_ROWS, n) - begin) * m;           /* the rows of a task lie in sequence */
    const real *first = sums + (batch * pieces * n + begin) * m;
    real *out = (real *)p->distances + (batch * n + begin) * m;
    for (int64_t j = 0; j < count; j += 16) {
        vd sum = vd_zero();
        for (int64_t piece = 0; piece < pieces; piece++) sum = vd_add(sum, WIDE(VR(load_part)(first + piece * n * m + j, count - j, 0)));
        if (p->metric == FD_EUCLIDEAN) sum = vd_sqrt(sum);
        if (p->metric == FD_COSINE) sum = vd_sub(vd_set1(1), sum);
        VR(store_part)(out + j, count - j, NARROW(sum));
    }
}
