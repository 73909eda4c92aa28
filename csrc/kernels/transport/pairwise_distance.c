/* pairwise_distance.c - distances between all points of two sets, for floats and for doubles.
 *
 * Few coordinates: y is put in groups of 16 points, which stand in the lanes (distance_rows.h).  Many: 16 coordinates stand in the
 * lanes, a register tile of pairs is summed over pieces of 512 coordinates, each lane in sequence, folded once a piece; the pieces are
 * merged in order, in doubles, and the result is rounded once.  Pieces are tasks: a pair's sum does not depend on its tile.
 */
enum { PAIR_ROWS = FD_ROW_TILE / 2 };                                       /* of x in a tile, by REAL_ROWS / 2 of y */
#define FD_COLUMNS_OF_TILE FD_UNROLL for (int c = 0; c < columns; c++)
static int finite_sum(double sum) { return sum - sum == 0; }

#define FD_REAL 32
#include "../real.h"
#include "pairwise_distance.h"
#undef FD_REAL
#define FD_REAL 64
#include "../real.h"
#include "pairwise_distance.h"
#undef FD_REAL
static int pairwise_distance(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *x, const void *y,
                             void *distances, void *workspace, int threads)
{
    struct pairwise job = {metric, batch, n, m, d, x, y, distances, workspace, 0};
    int few = d < FD_FEW_COORDINATES;
    fd_stage_fn *run = bits == 64 ? (few ? pairwise_few_f64 : pairwise_many_f64) : (few ? pairwise_few_f32 : pairwise_many_f32);
    fd_run_stages(threads, 2, few ? pairwise_few_tasks : pairwise_many_tasks, run, NULL, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
