/* distance_gradient.c - sum over j of weights[i][j] times the gradient of the distance of x_i and y_j by x_i; floats and doubles.
 *
 * A term is w (x - y), twice in the end, or for l1 w added where y < x and taken away where x < y.  Many coordinates: 16 of them
 * stand in the lanes, points y follow in sequence, 64 at a time, and these sums are merged in order, in doubles.  Few: y is put in
 * groups of 16 points, which stand in the lanes, 256 points at a time, which are folded and merged likewise.
 *
 * Cosine, of points of length 1: the same of half their squared distance, less its part along x, over x's length.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "pairwise_distance.c"

/* A sum of 16 lanes is wanted for each coordinate of a point, not, as of distances, for each pair: points in the lanes pay for fewer. */
enum { FD_FEW_SLOPES = 16 };
enum { GRADIENT_COLUMNS = FD_ROW_TILE / 4, SUMMED_POINTS = 64 };             /* a tile is so many vectors by REAL_ROWS / 2 of x */

struct gradient {
    int metric;
    int64_t batch, n, m, d;
    const void *weights, *x, *y;            /* (batch, n, m), (batch, n, d), (batch, m, d) */
    const double *lengths;                  /* (batch, n), of the cosine */
    void *gradient;                         /* (batch, n, d) */
    void *groups;                           /* few coordinates: y, (batch, m padded / 16, d, 16) */
    _Atomic int bad;
};
/* Stages: y in groups, where coordinates are few; sums; for the cosine, what lies along x taken away. */
static int64_t gradient_tasks(void *context, int64_t stage)
{
    const struct gradient *g = context;
    int few = g->d < FD_FEW_SLOPES;
    if (stage == 0) return few ? g->batch * fd_ceil(g->m, FD_COLUMNS) : 0;
    if (stage == 2) return g->metric == FD_COSINE ? g->batch * g->n : 0;
    return g->batch * fd_ceil(g->n, FD_POINTS) * (few ? 1 : fd_ceil(g->d, FD_COORDINATES));
}

#define FD_REAL 32
#include "../real.h"
#include "distance_gradient_real.h"
#define FD_REAL 64
#include "../real.h"
#include "distance_gradient_real.h"
static int distance_gradient(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *weights, const void *x,
                             const void *y, const double *lengths, void *gradient, void *workspace, int threads)
{
    struct gradient job = {metric, batch, n, m, d, weights, x, y, lengths, gradient, workspace, 0};
    fd_run_stages(threads, 3, gradient_tasks, bits == 64 ? gradient_f64 : gradient_f32, NULL, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
static int64_t distance_gradient_workspace(int bits, int64_t batch, int64_t m, int64_t d)
{
    return d < FD_FEW_SLOPES ? batch * d * fd_pad(m, 16) * (bits / 8) : 0;
}
