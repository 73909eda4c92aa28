/* experts.c - a mixture of experts: a row goes through the few feed-forward networks that its router picks.
 *
 * Routes of a row: the numbers of its top_k experts, ascending, as floats, padded with -1 to a multiple of 16; then their shares.
 * What experts_up makes: the row's top_k results, one after the other, each padded to a multiple of 32.
 *
 * A row's result is the sum of share * expert by ascending experts, and every product is made of one row alone: it matters neither which
 * rows come along nor which experts they go to.  The weights of an expert are read once for all rows that go to it; where they are few,
 * only those of experts that somebody goes to.
 */
#pragma once
#include "../tile.h"
#include "linear.c"

enum { FD_EXPERTS = 1024 };              /* the most; models check it */

struct routes { const float *experts, *shares; };
static struct routes routes_of(const struct fd_op *op, const float *routes, int64_t row)
{
    int64_t padded = fd_pad(op->top_k, FD_LANES);
    const float *experts = routes + row * fd_stride(2 * padded);
    return (struct routes){experts, experts + padded};
}
/* Which of the row's choices an expert is, or -1. */
static inline int64_t routes_rank(const struct fd_op *op, struct routes routes, int64_t expert)
{
    for (int64_t k = 0; k < op->top_k; k += FD_LANES) {
        uint32_t found = vm_bits(vf_equal(vf_load(routes.experts + k), vf_set1((float)expert)));
        if (found) return k + __builtin_ctz(found);
    }
    return -1;
}
static int experts_few(const struct fd_op *op, int64_t rows) { return rows * op->top_k <= op->experts; }

/* Softmax over all experts, of which the top_k largest (ties: the lowest number) are taken; with scalar 1 their shares sum to 1. */
static int op_route(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t n = op->experts, padded = fd_pad(op->top_k, FD_LANES);
    const float *logits = op->in[0] + row * fd_stride(n);
    float *experts = op->out[0] + row * fd_stride(2 * padded), *shares = experts + padded, p[FD_EXPERTS + FD_LANES], chosen = 0.0f;
    vf peak = vf_set1(-INFINITY), sum = vf_zero();
    vi largest = vi_set1(0);
    for (int64_t k = 0; k < n; k += 16) {
        vf z = vf_load_part(logits + k, n - k, -INFINITY);
        peak = vf_max(z, peak);
        largest = vi_max(largest, vi_of_bits(vf_abs(vf_load_part(logits + k, n - k, 0.0f))));
    }
    if (vi_largest(largest) >= 0x7f800000) return 0;
    peak = vf_set1(fd_max_lane(peak));
    for (int64_t k = 0; k < n; k += 16) {
        vf e = vf_exp(vf_sub(vf_load_part(logits + k, n - k, -INFINITY), peak));
        vf_store(p + k, e);
        sum = vf_add(sum, e);
    }
    float mass = vf_sum(sum);
    for (int64_t k = 0; k < padded; k++) { experts[k] = -1.0f; shares[k] = 0.0f; }
    for (int64_t count = 0, best; count < op->top_k; count++) {
        int64_t k = count;
        best = 0;
        for (int64_t i = 1; i < n; i++) if (p[i] > p[best]) best = i;
        for (; k > 0 && experts[k - 1] > (float)best; k--) { experts[k] = experts[k - 1]; shares[k] = shares[k - 1]; }
        experts[k] = (float)best;
        shares[k] = p[best];
        chosen += p[best];
        p[best] = -1.0f;
    }
    for (int64_t k = 0; k < op->top_k; k++) shares[k] = shares[k] / (op->scalar > 0.0f ? chosen : mass);
    for (int64_t k = 2 * padded; k < fd_stride(2 * padded); k++) experts[k] = 0.0f;
    return 1;
}

/* A unit is an expert, or, of few rows, a choice of one of them. */
static int64_t op_experts_up_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return fd_min(op_rows(op, pass) * op->top_k, op->experts) * fd_ceil(weight_tiles(op->weights[0]), FD_TASK_TILES);
}
static int op_experts_up(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t tiles = weight_tiles(op->weights[0]), groups = fd_ceil(tiles, FD_TASK_TILES), stride = tiles * FD_LANES;
    int64_t expert = task / groups, begin = task % groups * FD_TASK_TILES, first = 0;
    if (experts_few(op, op_rows(op, pass))) {
        first = expert / op->top_k;
        expert = (int64_t)routes_of(op, op->in[1], first).experts[expert % op->top_k];
        for (int64_t row = 0; row < first; row++)        /* whoever chose it first does it for all */
            if (routes_rank(op, routes_of(op, op->in[1], row), expert) >= 0) return 1;
    }
    struct linear_rows in = linear_rows_of(op);
    struct linear_weights gate = linear_weights_from(op->weights[2 * expert], begin), up = linear_weights_from(op->weights[2 * expert + 1], begin);
    for (int64_t tile = begin; tile < fd_min(begin + FD_TASK_TILES, tiles); tile++) {
        for (int64_t row = first, ahead = LINEAR_AHEAD; row < op_rows(op, pass); row++) {
            int64_t rank = routes_rank(op, routes_of(op, op->in[1], row), expert);
            vf y, gated;
            if (rank < 0) continue;
            linear_tile(1, &gate, &in, row, gate.tile + ahead, &y);
            linear_tile(1, &up, &in, row, up.tile + ahead, &gated);
            vf_store(op->out[0] + (row * op->top_k + rank) * stride + tile * FD_LANES, vf_mul(activation(op->activation, y), gated));
            ahead = 0;
        }
        linear_next(&gate);
        linear_next(&up);
    }
    return 1;
}

/* Adds 16 outputs of one expert to a row's. */
static void experts_add(const struct fd_op *op, int64_t row, int64_t rank, float share, int64_t expert, int64_t tile, int64_t ahead, float *out)
{
    int64_t stride = fd_stride(op->weights[0]->inputs), blocks = stride / FD_BLOCK;
    struct linear_rows in = {op->in[0] + rank * stride, op->top_k * stride, op->codes_in ? op->codes_in + rank * blocks : NULL, op->top_k * blocks, blocks};
    struct linear_weights w = linear_weights_from(op->weights[expert], tile);
    vf y;
    linear_tile(1, &w, &in, row, w.tile + ahead, &y);
    vf_store(out, vf_fma(vf_set1(share), y, vf_load(out)));
}
static int64_t op_experts_down_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return fd_ceil(weight_tiles(op->weights[0]), FD_TASK_TILES);
}
static int op_experts_down(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t tiles = weight_tiles(op->weights[0]), stride = tiles * FD_LANES, rows = op_rows(op, pass);
    for (int64_t tile = task * FD_TASK_TILES; tile < fd_min((task + 1) * FD_TASK_TILES, tiles); tile++) {
        float *out = op->out[0] + tile * FD_LANES;
        for (int64_t row = 0; row < rows; row++) vf_store(out + row * stride, vf_zero());
        if (experts_few(op, rows)) {
            for (int64_t row = 0; row < rows; row++) {
                struct routes routes = routes_of(op, op->in[1], row);
                for (int64_t rank = 0; rank < op->top_k; rank++)
                    experts_add(op, row, rank, routes.shares[rank], (int64_t)routes.experts[rank], tile, LINEAR_AHEAD, out + row * stride);
            }
            continue;
        }
        for (int64_t expert = 0; expert < op->experts; expert++)
            for (int64_t row = 0, ahead = LINEAR_AHEAD; row < rows; row++) {
                struct routes routes = routes_of(op, op->in[1], row);
                int64_t rank = routes_rank(op, routes, expert);
                if (rank < 0) continue;
                experts_add(op, row, rank, routes.shares[rank], expert, tile, ahead, out + row * stride);
                ahead = 0;
            }
    }
    return 1;
}
