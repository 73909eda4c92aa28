/* elementwise_gradient.c - gradients of what is done to a row on its own. */
#pragma once
#include "../forward/elementwise.c"
#include "linear_gradient.c"

static int op_given(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width);
    float *out = op->out[0] + row * stride;
    memcpy(out, pass->inputs + row * op->width, (size_t)op->width * sizeof *out);
    for (int64_t k = op->width; k < stride; k++) out[k] = 0.0f;
    return 1;
}

/* A task is a row of the pass: it looks for itself among those that were read, which ascend. */
static int op_spread(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), low = 0, high = pass->reads;
    float *out = op->out[0] + row * stride;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (pass->read_rows[middle] < row) low = middle + 1;
        else high = middle;
    }
    if (low < pass->reads && pass->read_rows[low] == row) return copy_row(op, row, low);
    memset(out, 0, (size_t)stride * sizeof *out);
    return 1;
}

/* Columns of a task, row after row: numbers that come again are summed in the rows' order.  numbers (rows,) of the table's rows, or NULL. */
static int table_gradient(const struct fd_op *op, int64_t rows, const int32_t *numbers, int64_t task)
{
    const struct fd_weight *gradient = op->weights[0];
    int64_t stride = fd_stride(op->width), begin = task * PRODUCT_LANES, end = fd_min(begin + PRODUCT_LANES, op->width);
    for (int64_t row = 0; numbers && row < rows; row++) {
        if (numbers[row] < 0) continue;
        float *to = (float *)(uintptr_t)packed_tile(gradient, numbers[row] / FD_LANES) + numbers[row] % FD_LANES;
        for (int64_t k = begin; k < end; k++) to[k * FD_LANES] += op->in[0][row * stride + k];
    }
    return 1;
}
static int op_embedding_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    return table_gradient(op, pass->rows, pass->tokens ? pass->tokens + op->first * pass->rows : NULL, task);
}
static int op_position_embedding_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    return table_gradient(op, pass->rows, pass->positions, task);
}
