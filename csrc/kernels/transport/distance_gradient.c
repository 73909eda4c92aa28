/* distance_gradient.c - sum over j of weights[i][j] times the gradient of the distance of x_i and y_j by x_i; floats and doubles.
 *
 * A term is w (x - y), twice in the end, or for l1 w added where y < x and taken away where x < y.  Many coordinates: 16 of them
 * stand in the lanes, points y follow in sequence, 64 at a time, and these sums are merged in order, in doubles.  Few: y is put in
 * groups of 16 points, which stand in the lanes, 256 points at a time, which are folded and merged likewise.
 *
 * Cosine, of points of length 1: the same of half their squared distance, less its part along x, over x's length.
 */
enum { GRADIENT_COLUMNS = FD_ROW_TILE / 4, SUMMED_POINTS = 64 };             /* a tile is so many vectors by REAL_ROWS / 2 of x */

#define FD_REAL 32
#include "../real.h"
#include "distance_gradient.h"
#undef FD_REAL
#define FD_REAL 64
#include "../real.h"
#include "distance_gradient.h"
#undef FD_REAL
static int distance_gradient(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *weights, const void *x,
                             const void *y, const double *lengths, void *gradient, void *workspace, int threads)
{
    struct gradient job = {metric, batch, n, m, d, weights, x, y, lengths, gradient, workspace, 0};
    fd_run_stages(threads, 3, gradient_tasks, bits == 64 ? gradient_f64 : gradient_f32, NULL, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
