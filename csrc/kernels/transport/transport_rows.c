/* transport_rows.c - what is asked of a plan, some rows at a time: the rows, their products with values, their pull on the points.
 *
 * The plan is a_i b_j exp(phi_i + gamma_j - cost_ij / epsilon), computed anew from the potentials in a few rows that stay in the cache.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "sinkhorn.c"

struct transport_rows {
    const struct fd_transport *t;
    struct sinkhorn_costs costs;
    int kind;
    int64_t first, width;
    double scale, inverse, log_b;
    const double *a, *phi, *gamma;          /* (n,), (n,), (padded,): with the logarithm of b */
    const void *values;                     /* (width, columns padded) of reals */
    void *out;
    struct sinkhorn_slots slots;
};
#define FD_REAL 32
#include "../real.h"
#include "transport_rows_real.h"
#define FD_REAL 64
#include "../real.h"
#include "transport_rows_real.h"

static int64_t transport_rows_workspace(const struct fd_transport *t, int threads)
{
    return threads * sinkhorn_slot_bytes(t) + fd_pad(t->m, 16) * (int64_t)sizeof(double);
}
static void transport_rows(const struct fd_transport *t, int64_t index, int64_t first, int64_t count, int kind, double scale,
                           int64_t width, const void *values, void *out, void *workspace, int threads)
{
    const double *constants = t->constants + 4 * index;
    struct transport_rows p = {t, sinkhorn_costs(t, index), kind, first, width, scale, 1.0 / constants[0], constants[2],
                               t->a + index * t->n, t->phi + index * t->n, NULL, values, out, {workspace, sinkhorn_slot_bytes(t), 0}};
    double *gamma = (double *)((char *)workspace + threads * sinkhorn_slot_bytes(t));
    sinkhorn_logs(p.costs.m, t->b + index * t->m, gamma);
    for (int64_t j = 0; j < p.costs.m; j++) gamma[j] += t->gamma[index * t->m + j];
    p.gamma = gamma;
    fd_parallel_for(threads, count, SINKHORN_STEP, t->bits == 64 ? transport_rows_range_f64 : transport_rows_range_f32, &p);
}
