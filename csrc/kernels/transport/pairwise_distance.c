/* pairwise_distance.c - distances between all points of two sets, for floats and for doubles.
 *
 * Few coordinates: y is put in groups of 16 points, which stand in the lanes (distance_rows_real.h).  Many: 16 coordinates stand in the
 * lanes, a register tile of pairs is summed over pieces of 512 coordinates, each lane in sequence, folded once a piece; the pieces are
 * merged in order, in doubles, and the result is rounded once.  Pieces are tasks: a pair's sum does not depend on its tile.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "distance_rows.c"

/* Points of few coordinates have points in the lanes, others coordinates: shape decides alone. */
enum {
    FD_FEW_COORDINATES = 64,
    FD_COORDINATES = 512,   /* of one piece of a distance: 64 rows of x and of y of them lie in a second-level cache */
    FD_POINTS = 64,
    FD_COLUMNS = 256        /* points in the lanes of one piece */
};
enum { PAIR_ROWS = FD_ROW_TILE / 2 };                                       /* of x in a tile, by REAL_ROWS / 2 of y */
#define FD_COLUMNS_OF_TILE FD_UNROLL for (int c = 0; c < columns; c++)
static int finite_sum(double sum) { return sum - sum == 0; }

struct pairwise {
    int metric;
    int64_t batch, n, m, d;
    const void *x, *y;                      /* (batch, n, d), (batch, m, d) */
    void *distances;                        /* (batch, n, m) */
    void *workspace;                        /* few: y in groups, (batch, stride / 16, d, 16); many: sums, (batch, pieces, n, m) */
    _Atomic int bad;
};
enum { MERGED_ROWS = 16 };
static int64_t pairwise_few_tasks(void *context, int64_t stage)
{
    const struct pairwise *p = context;
    return p->batch * fd_ceil(p->m, FD_COLUMNS) * (stage ? fd_ceil(p->n, FD_POINTS) : 1);
}
static int64_t pairwise_many_tasks(void *context, int64_t stage)
{
    const struct pairwise *p = context;
    return p->batch * (stage ? fd_ceil(p->n, MERGED_ROWS)
                             : fd_ceil(p->d, FD_COORDINATES) * fd_ceil(p->n, FD_POINTS) * fd_ceil(p->m, FD_POINTS));
}

#define FD_REAL 32
#include "../real.h"
#include "pairwise_distance_real.h"
#define FD_REAL 64
#include "../real.h"
#include "pairwise_distance_real.h"
static int pairwise_distance(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *x, const void *y,
                             void *distances, void *workspace, int threads)
{
    struct pairwise job = {metric, batch, n, m, d, x, y, distances, workspace, 0};
    int few = d < FD_FEW_COORDINATES;
    fd_stage_fn *run = bits == 64 ? (few ? pairwise_few_f64 : pairwise_many_f64) : (few ? pairwise_few_f32 : pairwise_many_f32);
    fd_run_stages(threads, 2, few ? pairwise_few_tasks : pairwise_many_tasks, run, NULL, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
static int64_t pairwise_distance_workspace(int bits, int64_t batch, int64_t n, int64_t m, int64_t d)
{
    return batch * (d < FD_FEW_COORDINATES ? d * fd_pad(m, 16) : fd_ceil(d, FD_COORDINATES) * n * m) * (bits / 8);
}
