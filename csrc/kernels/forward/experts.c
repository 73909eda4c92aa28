/* experts.c - a mixture of experts: a row goes through the few feed-forward networks that its router picks.
 *
 * Routes of a row: the numbers of its top_k experts, ascending, as floats, padded with -1 to a multiple of 16; then their shares.
 * What experts_up makes: the row's top_k results, one after the other, each padded to a multiple of 32.
 *
 * A row's result is the sum of share * expert by ascending experts, and a product's bits do not depend on the rows beside it in a tile: it
 * matters neither which rows come along nor which experts they go to.  The weights of an expert are read once for all rows that go to it;
 * where they are few, only those of experts that somebody goes to.
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

/* Some of the rows that go to an expert: which, what their place among a row's choices is, and the inputs that are multiplied: int8 forms
 * side by side, so that a tile takes them all.  One row is taken from where it lies, and so is each of floats or of very wide rows. */
enum { EXPERT_BLOCKS = 128 };            /* the widest rows that are brought together: 45 KB of stack */
struct expert_rows {
    int64_t count, row[FD_ROW_TILE], rank[FD_ROW_TILE];
    struct linear_rows in;
    int64_t first;                       /* of `in`, the first of them */
    struct fd_block held[FD_ROW_TILE / FD_GROUP * EXPERT_BLOCKS];
};
/* The next rows, from `row` on, that an expert has, and the row after them; `all`: what a choice multiplies, the ranks `apart` blocks apart. */
static int64_t expert_rows_next(const struct fd_op *op, int64_t row, int64_t rows, int64_t expert, const struct linear_rows *all, int64_t apart,
                                struct expert_rows *e)
{
    const int64_t most = all->codes && all->count <= EXPERT_BLOCKS ? FD_ROW_TILE : 1;
    for (e->count = 0; row < rows && e->count < most; row++) {
        int64_t rank = routes_rank(op, routes_of(op, op->in[1], row), expert);
        if (rank < 0) continue;
        e->row[e->count] = row;
        e->rank[e->count++] = rank;
    }
    e->in = *all;
    e->first = e->count ? e->row[0] : 0;
    if (e->count == 1) {
        e->in.x += e->rank[0] * apart * FD_BLOCK;
        if (e->in.codes) e->in.codes += e->rank[0] * apart;
    }
    if (e->count <= 1) return row;
    for (int64_t r = 0; r < e->count; r++) {
        const struct fd_block *from = all->codes + e->row[r] / FD_GROUP * all->blocks + e->rank[r] * apart;
        struct fd_block *to = e->held + r / FD_GROUP * all->count;
        int64_t lane = r % FD_GROUP, of = e->row[r] % FD_GROUP;
        for (int64_t b = 0; b < all->count; b++) {
            block_copy_codes(to + b, lane, from + b, of);
            to[b].scale[lane] = from[b].scale[of];
            to[b].sum[lane] = from[b].sum[of];
            to[b].total[lane] = from[b].total[of];
        }
    }
    e->in.codes = e->held;
    e->in.blocks = all->count;
    e->first = 0;
    return row;
}

/* A unit is an expert, or, of few rows, a choice of one of them. */
static int64_t op_experts_up_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return fd_min(op_rows(op, pass) * op->top_k, op->experts) * fd_ceil(weight_tiles(op->weights[0]), FD_TASK_TILES);
}
/* Of each choice w x, or, of two matrices an expert, activation(w x) * (v x). */
FD_INLINE int experts_products(const int matrices, const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t tiles = weight_tiles(op->weights[0]), groups = fd_ceil(tiles, FD_TASK_TILES), stride = tiles * FD_LANES, rows = op_rows(op, pass);
    int64_t expert = task / groups, begin = task % groups * FD_TASK_TILES, first = 0, ahead = LINEAR_AHEAD;
    if (experts_few(op, rows)) {
        first = expert / op->top_k;
        expert = (int64_t)routes_of(op, op->in[1], first).experts[expert % op->top_k];
        for (int64_t row = 0; row < first; row++)        /* whoever chose it first does it for all */
            if (routes_rank(op, routes_of(op, op->in[1], row), expert) >= 0) return 1;
    }
    const struct linear_rows all = linear_rows_of(op);
    struct expert_rows e;
    for (int64_t row = first; row < rows; ahead = 0) {
        row = expert_rows_next(op, row, rows, expert, &all, 0, &e);
        if (!e.count) break;
        const struct fd_weight *const *of = op->weights + matrices * expert;
        struct linear_weights gate = linear_weights_from(of[0], begin), up = linear_weights_from(of[matrices - 1], begin);
        for (int64_t tile = begin; tile < fd_min(begin + FD_TASK_TILES, tiles); tile++) {
            vf y[FD_ROW_TILE], gated[FD_ROW_TILE];
            linear_tile(e.count, &gate, &e.in, e.first, gate.tile + ahead, y);
            if (matrices == 2) linear_tile(e.count, &up, &e.in, e.first, up.tile + ahead, gated);
            for (int64_t r = 0; r < e.count; r++)
                vf_store(op->out[0] + (e.row[r] * op->top_k + e.rank[r]) * stride + tile * FD_LANES,
                         matrices == 2 ? vf_mul(activation(op->activation, y[r]), gated[r]) : y[r]);
            linear_next(&gate);
            linear_next(&up);
        }
    }
    return 1;
}
static int op_experts_up(const struct fd_op *op, const struct fd_pass *pass, int64_t task) { return experts_products(2, op, pass, task); }
static int op_experts_linear(const struct fd_op *op, const struct fd_pass *pass, int64_t task) { return experts_products(1, op, pass, task); }

static int64_t op_experts_down_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return fd_ceil(weight_tiles(op->weights[0]), FD_TASK_TILES);
}
/* Adds an expert's share to the outputs of those of rows [row, rows) that go to it, in tiles [begin, end). */
static void experts_add(const struct fd_op *op, int64_t row, int64_t rows, int64_t expert, int64_t begin, int64_t end)
{
    int64_t inner = fd_stride(op->weights[0]->inputs), blocks = inner / FD_BLOCK, stride = weight_tiles(op->weights[0]) * FD_LANES;
    int64_t ahead = LINEAR_AHEAD;
    const struct linear_rows all = {op->in[0], op->top_k * inner, op->codes_in, op->top_k * blocks, blocks};
    struct expert_rows e;
    for (; row < rows; ahead = 0) {
        row = expert_rows_next(op, row, rows, expert, &all, blocks, &e);
        if (!e.count) break;
        struct linear_weights w = linear_weights_from(op->weights[expert], begin);
        for (int64_t tile = begin; tile < end; tile++) {
            vf y[FD_ROW_TILE];
            linear_tile(e.count, &w, &e.in, e.first, w.tile + ahead, y);
            for (int64_t r = 0; r < e.count; r++) {
                float *out = op->out[0] + e.row[r] * stride + tile * FD_LANES;
                vf_store(out, vf_fma(vf_set1(routes_of(op, op->in[1], e.row[r]).shares[e.rank[r]]), y[r], vf_load(out)));
            }
            linear_next(&w);
        }
    }
}
static int op_experts_down(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t tiles = weight_tiles(op->weights[0]), stride = tiles * FD_LANES, rows = op_rows(op, pass);
    int64_t begin = task * FD_TASK_TILES, end = fd_min(begin + FD_TASK_TILES, tiles);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = begin * FD_LANES; k < end * FD_LANES; k += FD_LANES) vf_store(op->out[0] + row * stride + k, vf_zero());
    if (experts_few(op, rows)) {
        for (int64_t row = 0; row < rows; row++)
            for (int64_t rank = 0; rank < op->top_k; rank++)
                experts_add(op, row, row + 1, (int64_t)routes_of(op, op->in[1], row).experts[rank], begin, end);
    } else {
        for (int64_t expert = 0; expert < op->experts; expert++) experts_add(op, 0, rows, expert, begin, end);
    }
    return 1;
}
