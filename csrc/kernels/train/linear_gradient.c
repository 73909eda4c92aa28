/* linear_gradient.c - gradients by what a linear reads, and by its matrix and bias, of those by what it gives.
 *
 * Sums run in one order: by the input along outputs, matrix after matrix; by weights along rows, going on from what the gradient holds.
 * So neither threads nor how rows are split over passes change a bit.
 */
#pragma once
#include "../forward/linear.c"
#include "../product.h"

enum {
    GRADIENT_DEPTH = 256,               /* terms of a sum that lie in a panel of 32 KB: it stays in the first or second cache */
    GRADIENT_ROWS = 192,                /* inputs of a task: whole tiles of 12 and of 6; */
    GRADIENT_FEW = 96,                  /* inputs, or rows, where there are fewer groups of columns than */
    GRADIENT_GROUPS = 8
};

/* Column j of a block of q8 or q4, all 16 outputs, where codes lie four by four. */
static inline vf gradient_codes(int q8, const char *block, int64_t j)
{
    vi four = vi_load((const int32_t *)(const void *)(block + j % (q8 ? 32 : 16) / 4 * 64));
    vi code = vi_shr(four, (int)(j % 4 * 8) + (q8 || j < 16 ? 0 : 4));
    if (!q8) return vf_from_int(vi_and(code, vi_set1(15)));
    return vf_from_int(vi_sub(vi_xor(vi_and(code, vi_set1(255)), vi_set1(128)), vi_set1(128)));
}
/* Columns k .. k + 32 of 16 outputs, from output 16 `tile` on -> panel (16, 32); zeros beyond the last column. */
static void gradient_panel(const struct fd_weight *weight, int64_t tile, int64_t k, float *panel)
{
    const char *base = packed_tile(weight, tile);
    const int64_t n = fd_min(PRODUCT_LANES, weight->inputs - k);
    const int q8 = weight->format == FD_Q8;
    const char *block = base + k / FD_BLOCK * (q8 ? PACKED_Q8 : PACKED_Q4);
    const uint16_t *scales = (const uint16_t *)(const void *)(block + (q8 ? CODES_Q8 : CODES_Q4));
    if (weight->format >= FD_Q8 && FD_LAYOUT != FD_16X4) {
        for (int64_t lane = 0; lane < FD_LANES; lane++)
            for (int64_t j = 0; j < FD_BLOCK; j++) {
                uint8_t byte = (uint8_t)block[packed_at(FD_LAYOUT, q8 ? 32 : 16, lane, q8 ? j : j % 16)];
                float code = q8 ? (float)(int8_t)byte : (float)(j < 16 ? byte & 15 : byte >> 4);
                float value = fd_f16_to_f32(scales[lane]) * code + (q8 ? 0.0f : fd_f16_to_f32(scales[FD_LANES + lane]));
                panel[lane * PRODUCT_LANES + j] = j < n ? value : 0.0f;
            }
        return;
    }
    vf scale = vf_zero(), minimum = vf_zero();
    if (weight->format >= FD_Q8) scale = vf_load_f16(scales);
    if (weight->format == FD_Q4) minimum = vf_load_f16(scales + FD_LANES);
    for (int64_t half = 0; half < PRODUCT_LANES; half += FD_LANES) {
        vf x[FD_LANES];
        for (int64_t i = 0; i < FD_LANES; i++) {
            int64_t j = half + i, at = (k + j) * FD_LANES;
            if (j >= n) x[i] = vf_zero();
            else if (weight->format == FD_F32) x[i] = vf_load((const float *)(const void *)base + at);
            else if (weight->format == FD_F16) x[i] = vf_load_f16((const uint16_t *)(const void *)base + at);
            else if (weight->format == FD_BF16) x[i] = vf_load_bf16((const uint16_t *)(const void *)base + at);
            else x[i] = vf_add(vf_mul(scale, gradient_codes(q8, block, j)), minimum);
        }
        vf_transpose(x);
        for (int64_t lane = 0; lane < FD_LANES; lane++) vf_store(panel + lane * PRODUCT_LANES + half, x[lane]);
    }
}

static int64_t input_gradient_rows(const struct fd_op *op, int64_t rows)               /* rows of a task */
{
    return fd_stride(op->weights[0]->inputs) / PRODUCT_LANES >= GRADIENT_GROUPS ? fd_max(rows, 1) : GRADIENT_FEW;
}
static int64_t op_linear_input_gradient_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    int64_t rows = op_rows(op, pass);
    return fd_stride(op->weights[0]->inputs) / PRODUCT_LANES * fd_ceil(rows, input_gradient_rows(op, rows));
}
static int op_linear_input_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    float panel[GRADIENT_DEPTH * PRODUCT_LANES];
    int64_t rows = op_rows(op, pass), each = input_gradient_rows(op, rows), stride = fd_stride(op->weights[0]->inputs);
    int64_t k = task % (stride / PRODUCT_LANES) * PRODUCT_LANES, first = task / (stride / PRODUCT_LANES) * each;
    struct product_b b = {panel, FD_LANES, PRODUCT_LANES};
    struct product_c c = {op->out[0] + first * stride + k, stride, FD_LANES};
    enum product_start start = PRODUCT_NEW;
    const int64_t count = fd_min(each, rows - first);
    const int narrow = op->weights[0]->inputs - k <= FD_LANES;
    for (int64_t row = 0; narrow && row < count; row++) vf_store(c.at + row * stride + FD_LANES, vf_zero());
    for (int part = 0; part < op->parts; part++) {
        const struct fd_weight *weight = op->weights[part];
        int64_t outputs = fd_pad(weight->outputs, FD_LANES), from = fd_stride(weight->outputs);
        for (int64_t o = 0; o < outputs; o += GRADIENT_DEPTH, start = PRODUCT_GO_ON) {
            int64_t depth = fd_min(GRADIENT_DEPTH, outputs - o);
            for (int64_t i = 0; i < depth; i += FD_LANES)
                gradient_panel(weight, (o + i) / FD_LANES, k, panel + i * PRODUCT_LANES);
            struct product_a a = {op->in[part] + first * from + o, from, 1};
            (narrow ? product_narrow : product)(count, start, depth, a, b, c);
        }
    }
    return 1;
}

static int64_t weight_gradient_inputs(const struct fd_weight *gradient)                /* of a task */
{
    return fd_stride(gradient->outputs) / PRODUCT_LANES >= GRADIENT_GROUPS ? GRADIENT_ROWS : GRADIENT_FEW;
}
static int64_t op_linear_weight_gradient_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    const struct fd_weight *gradient = op->weights[0];
    return fd_stride(gradient->outputs) / PRODUCT_LANES * fd_ceil(gradient->inputs, weight_gradient_inputs(gradient));
}
/* In the layout of the matrix: rows of a tile are its inputs, lanes its outputs. */
static int op_linear_weight_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    float panel[GRADIENT_DEPTH * PRODUCT_LANES];
    const struct fd_weight *gradient = op->weights[0];
    int64_t rows = op_rows(op, pass), x_stride = fd_stride(op->width), stride = fd_stride(gradient->outputs), groups = stride / PRODUCT_LANES;
    int64_t o = task % groups * PRODUCT_LANES, k = task / groups * weight_gradient_inputs(gradient), tile = gradient->inputs * FD_LANES;
    struct product_b b = {panel, FD_LANES, PRODUCT_LANES};
    struct product_c c = {(float *)(uintptr_t)gradient->packed + o / FD_LANES * tile + k * FD_LANES, FD_LANES, tile};
    for (int64_t row = 0; row < rows; row += GRADIENT_DEPTH) {
        int64_t depth = fd_min(GRADIENT_DEPTH, rows - row);
        const float *dy = op->in[1] + row * stride + o;
        for (int64_t r = 0; r < depth; r++)
            for (int64_t lane = 0; lane < PRODUCT_LANES; lane += FD_LANES) {
                __builtin_prefetch(dy + (r + PRODUCT_AHEAD) * stride + lane);
                vf_store(panel + r * PRODUCT_LANES + lane, vf_load(dy + r * stride + lane));
            }
        struct product_a a = {op->in[0] + row * x_stride + k, 1, x_stride};
        (gradient->outputs - o <= FD_LANES ? product_narrow : product)(fd_min(weight_gradient_inputs(gradient), gradient->inputs - k),
                                                                       PRODUCT_GO_ON, depth, a, b, c);
    }
    return 1;
}

static int64_t summed_columns(const struct fd_op *op) { return op->heads > 1 ? op->width / op->heads : op->width; }
static int64_t op_column_tasks(const struct fd_op *op, const struct fd_pass *pass) { return fd_stride(summed_columns(op)) / PRODUCT_LANES; }
static int op_column_sums(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int64_t stride = fd_stride(op->width), n = summed_columns(op), at = task * PRODUCT_LANES;
    float *sum = (float *)(uintptr_t)op->vectors[0] + at;
    vf low = vf_load(sum), high = vf_load(sum + FD_LANES);
    for (int64_t row = 0; row < op_rows(op, pass); row++)
        for (int64_t k = at; k < op->width; k += n) {
            const float *x = op->in[0] + row * stride + k;
            low = vf_add(low, vf_load_part(x, n - at, 0.0f));
            high = vf_add(high, vf_load_part(x + FD_LANES, n - at - FD_LANES, 0.0f));
        }
    vf_store(sum, low);
    vf_store(sum + FD_LANES, high);
    return 1;
}
