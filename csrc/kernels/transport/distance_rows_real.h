/* distance_rows_real.h - distances from a few points to many, for floats or for doubles: 16 of the many in the lanes, coordinates in sequence.
 * The many lie in groups of 16, of a group first coordinate after coordinate: one stream of memory. */

/* x (rows, d), y (padded / 16, d, 16) -> out (rows, padded).  rows and metric are constants where this is inlined. */
FD_INLINE void NAME(distance_tile)(int metric, int rows, int64_t d, const real *x, int64_t padded,
                                                                      const real *y, real *out)
{
    for (int64_t j = 0; j < padded; j += 16) {
        const real *group = y + j * d;
        vr sum[REAL_ROWS];
        FD_ROWS sum[r] = VR(zero)();
        for (int64_t k = 0; k < d; k++) {
            vr there = VR(load)(group + 16 * k);
            FD_ROWS {
                vr here = VR(set1)(x[r * d + k]);
                if (metric == FD_COSINE) sum[r] = VR(fma)(here, there, sum[r]);
                else {
                    vr apart = VR(sub)(here, there);
                    sum[r] = metric == FD_L1 ? VR(add)(sum[r], VR(abs)(apart)) : VR(fma)(apart, apart, sum[r]);
                }
            }
        }
        FD_ROWS {
            if (metric == FD_EUCLIDEAN) sum[r] = VR(sqrt)(sum[r]);
            if (metric == FD_COSINE) sum[r] = VR(sub)(VR(set1)(1), sum[r]);
            VR(store)(out + r * padded + j, sum[r]);
        }
    }
}
/* For any number of rows.  Cosine: of points of length 1. */
static void NAME(distance_rows)(int metric, int64_t rows, int64_t d, const real *x, int64_t padded, const real *y, real *out)
{
    int64_t r = 0;
#define FD_DISTANCE(metric, rows) NAME(distance_tile)(metric, rows, d, x + r * d, padded, y, out + r * padded)
#define FD_DISTANCES(metric) do { \
        for (; r + REAL_ROWS <= rows; r += REAL_ROWS) FD_DISTANCE(metric, REAL_ROWS); \
        for (; r < rows; r++) FD_DISTANCE(metric, 1); \
    } while (0)
    switch (metric) {
    case FD_SQEUCLIDEAN: FD_DISTANCES(FD_SQEUCLIDEAN); break;
    case FD_EUCLIDEAN: FD_DISTANCES(FD_EUCLIDEAN); break;
    case FD_L1: FD_DISTANCES(FD_L1); break;
    default: FD_DISTANCES(FD_COSINE); break;
    }
#undef FD_DISTANCE
#undef FD_DISTANCES
}
