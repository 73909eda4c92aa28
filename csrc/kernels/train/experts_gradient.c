/* experts_gradient.c - gradients by what experts read, by their matrices, by shares and by the router's logits.
 *
 * What lies "by choice" is a row's top_k parts, one after the other, each padded to a multiple of 32; see experts.c for routes.  Sums run in
 * one order: by a row along experts and their outputs, by a matrix along the rows that go to it.
 */
#pragma once
#include "../forward/experts.c"
#include "linear_gradient.c"

/* Some of the rows that go to an expert, and where it stands among their choices. */
enum { EXPERT_CHOICES = 32 };
struct choices { int64_t count, row[EXPERT_CHOICES], rank[EXPERT_CHOICES]; };

/* The next of them, from `row` on; returns the row after them. */
static int64_t choices_next(const struct fd_op *op, const float *routes, int64_t row, int64_t rows, int64_t expert, struct choices *c)
{
    for (c->count = 0; row < rows && c->count < EXPERT_CHOICES; row++) {
        int64_t rank = routes_rank(op, routes_of(op, routes, row), expert);
        if (rank < 0) continue;
        c->row[c->count] = row;
        c->rank[c->count++] = rank;
    }
    return row;
}
/* Where number i of them lies in a value whose parts, or rows, are `stride` apart. */
static int64_t choices_at(const struct fd_op *op, const struct choices *c, int64_t i, int by_choice, int64_t stride)
{
    return by_choice ? (c->row[i] * op->top_k + c->rank[i]) * stride : c->row[i] * stride;
}

/* Adds dy W to columns k .. k + 32 of the sums of some rows that go to an expert: dy by choice, sums by row, or the other way round. */
static void experts_input_add(const struct fd_op *op, int64_t expert, const struct choices *c, int64_t k, int by_choice)
{
    float panel[GRADIENT_DEPTH * PRODUCT_LANES], dy[PRODUCT_ROWS * GRADIENT_DEPTH], sums[PRODUCT_ROWS * PRODUCT_LANES];
    const struct fd_weight *weight = op->weights[expert];
    int64_t outputs = fd_pad(weight->outputs, FD_LANES), from = fd_stride(weight->outputs), to = fd_stride(weight->inputs);
    for (int64_t o = 0; o < outputs; o += GRADIENT_DEPTH) {
        int64_t depth = fd_min(GRADIENT_DEPTH, outputs - o);
        for (int64_t i = 0; i < depth; i += FD_LANES) gradient_panel(weight, (o + i) / FD_LANES, k, panel + i * PRODUCT_LANES);
        for (int64_t first = 0, n; first < c->count; first += n) {
            n = fd_min(PRODUCT_ROWS, c->count - first);
            for (int64_t r = 0; r < n; r++) {
                memcpy(dy + r * GRADIENT_DEPTH, op->in[0] + choices_at(op, c, first + r, by_choice, from) + o, (size_t)depth * sizeof *dy);
                memcpy(sums + r * PRODUCT_LANES, op->out[0] + choices_at(op, c, first + r, !by_choice, to) + k, PRODUCT_LANES * sizeof *sums);
            }
            product(n, PRODUCT_GO_ON, depth, (struct product_a){dy, GRADIENT_DEPTH, 1}, (struct product_b){panel, FD_LANES, PRODUCT_LANES},
                    (struct product_c){sums, PRODUCT_LANES, FD_LANES});
            for (int64_t r = 0; r < n; r++)
                memcpy(op->out[0] + choices_at(op, c, first + r, !by_choice, to) + k, sums + r * PRODUCT_LANES, PRODUCT_LANES * sizeof *sums);
        }
    }
}
static int64_t op_experts_input_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return fd_stride(op->weights[0]->inputs) / PRODUCT_LANES;
}
static int experts_input_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task, int by_choice)
{
    int64_t rows = op_rows(op, pass), k = task * PRODUCT_LANES, stride = fd_stride(op->weights[0]->inputs);
    struct choices c;
    for (int64_t i = 0; i < rows * (by_choice ? 1 : op->top_k); i++) memset(op->out[0] + i * stride + k, 0, PRODUCT_LANES * sizeof(float));
    for (int64_t expert = 0; expert < op->experts; expert++)
        for (int64_t row = 0; row < rows;) {
            row = choices_next(op, op->in[1], row, rows, expert, &c);
            experts_input_add(op, expert, &c, k, by_choice);
        }
    return 1;
}
static int op_experts_up_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    return experts_input_gradient(op, pass, task, 1);
}
static int op_experts_down_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    return experts_input_gradient(op, pass, task, 0);
}

/* A task is some columns and outputs of one matrix, in whose layout the gradient lies; vectors[0] says whose matrices these are.  What
 * is read, in[0], or what is given, in[1], lies by choice: in[0] where it is wider than a row of the matrix.  Of equal width (top_k is 1)
 * both mean the same. */
static int64_t experts_weight_tasks(const struct fd_weight *gradient)
{
    return fd_stride(gradient->outputs) / PRODUCT_LANES * fd_ceil(gradient->inputs, GRADIENT_ROWS);
}
static int64_t op_experts_weight_gradient_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    return op->parts * experts_weight_tasks(op->weights[0]);
}
static int op_experts_weight_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    float panel[EXPERT_CHOICES * PRODUCT_LANES], x[EXPERT_CHOICES * GRADIENT_ROWS];
    int64_t each = experts_weight_tasks(op->weights[0]), part = task / each, expert = (int64_t)op->vectors[0][part];
    const struct fd_weight *gradient = op->weights[part];
    int64_t rows = op_rows(op, pass), groups = fd_stride(gradient->outputs) / PRODUCT_LANES, tile = gradient->inputs * FD_LANES;
    int64_t o = task % each % groups * PRODUCT_LANES, k = task % each / groups * GRADIENT_ROWS, n = fd_min(GRADIENT_ROWS, gradient->inputs - k);
    int by_choice = op->width != gradient->inputs;
    struct product_c to = {(float *)(uintptr_t)gradient->packed + o / FD_LANES * tile + k * FD_LANES, FD_LANES, tile};
    struct choices c;
    for (int64_t row = 0; row < rows;) {
        row = choices_next(op, op->in[2], row, rows, expert, &c);
        for (int64_t i = 0; i < c.count; i++) {
            const float *dy = op->in[1] + choices_at(op, &c, i, !by_choice, fd_stride(gradient->outputs)) + o;
            memcpy(panel + i * PRODUCT_LANES, dy, PRODUCT_LANES * sizeof *panel);
            memcpy(x + i * GRADIENT_ROWS, op->in[0] + choices_at(op, &c, i, by_choice, fd_stride(gradient->inputs)) + k, (size_t)n * sizeof *x);
        }
        product(n, PRODUCT_GO_ON, c.count, (struct product_a){x, 1, GRADIENT_ROWS}, (struct product_b){panel, FD_LANES, PRODUCT_LANES}, to);
    }
    return 1;
}

/* in[0], by choice, times the shares of in[1]. */
static int op_experts_scale(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t each = op->width / op->top_k, at = row * op->width;
    for (int64_t rank = 0; rank < op->top_k; rank++) {
        vf share = vf_set1(routes_of(op, op->in[1], row).shares[rank]);
        for (int64_t end = at + each; at < end; at += FD_LANES) vf_store(op->out[0] + at, vf_mul(vf_load(op->in[0] + at), share));
    }
    return 1;
}
/* The sums of in[0] * in[1], both by choice, where routes have shares. */
static int op_experts_share_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t padded = fd_pad(op->top_k, FD_LANES), stride = fd_stride(2 * padded), each = op->width / op->top_k, at = row * op->width;
    float *out = op->out[0] + row * stride;
    memset(out, 0, (size_t)stride * sizeof *out);
    for (int64_t rank = 0; rank < op->top_k; rank++) {
        vf sum = vf_zero();
        for (int64_t end = at + each; at < end; at += FD_LANES) sum = vf_fma(vf_load(op->in[0] + at), vf_load(op->in[1] + at), sum);
        out[padded + rank] = vf_sum(sum);
    }
    return 1;
}

/* Of shares p of logits in[0], chosen as in[1] says, and the gradient by the chosen ones, in[2]: p (that - the mean of all, weighted by p),
 * where that of what is not chosen is 0; with scalar 1 there is no p but of those chosen. */
static int op_route_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t n = op->experts;
    struct routes routes = routes_of(op, op->in[1], row), given = routes_of(op, op->in[2], row);
    const float *logits = op->in[0] + row * fd_stride(n);
    float *out = op->out[0] + row * fd_stride(n), mean = 0.0f;
    for (int64_t k = 0; k < op->top_k; k++) mean += routes.shares[k] * given.shares[k];
    memset(out, 0, (size_t)fd_stride(n) * sizeof *out);
    if (op->scalar == 0.0f) {
        vf peak = vf_set1(-INFINITY), sum = vf_zero();
        for (int64_t k = 0; k < n; k += FD_LANES) peak = vf_max(vf_load_part(logits + k, n - k, -INFINITY), peak);
        peak = vf_set1(fd_max_lane(peak));
        for (int64_t k = 0; k < n; k += FD_LANES) {
            vf e = vf_exp(vf_sub(vf_load_part(logits + k, n - k, -INFINITY), peak));
            vf_store_part(out + k, n - k, e);
            sum = vf_add(sum, e);
        }
        vf of_each = vf_set1(-mean / vf_sum(sum));
        for (int64_t k = 0; k < n; k += FD_LANES) vf_store_part(out + k, n - k, vf_mul(vf_load_part(out + k, n - k, 0.0f), of_each));
    }
    for (int64_t k = 0; k < op->top_k; k++) out[(int64_t)routes.experts[k]] = routes.shares[k] * (given.shares[k] - mean);
    return 1;
}
