/* elementwise.c - what is done to a row on its own: root-mean-square norm, sum, gate, reading, copies. */
#pragma once
#include "../tile.h"
#include "linear.c"
#include "quantize_rows.c"
#include "unpack.c"

static int op_rms_norm(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width);
    const float *x = op->in[0] + row * stride;
    float *y = op->out[0] + row * stride;
    vf sum = vf_zero();
    for (int64_t k = 0; k < stride; k += 16) { vf v = vf_load(x + k); sum = vf_fma(v, v, sum); }
    float squares = vf_sum(sum), inverse = 1.0f / sqrtf(squares / (float)op->width + op->scalar);
    for (int64_t k = 0; k < stride; k += 16)
        vf_store(y + k, vf_mul(vf_mul(vf_load(x + k), vf_set1(inverse)), vf_load(op->vectors[0] + k)));
    if (!(squares < INFINITY)) return 0;                 /* NaN, or too large to be squared: the result would be 0 */
    return op->codes_out ? quantize_row(op->width, y, row, op->codes_out) : 1;
}

static int op_quantize(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    return quantize_row(op->width, op->in[0] + row * fd_stride(op->width), row, op->codes_out);
}

static int op_add(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = 0; k < stride; k += 16) vf_store(op->out[0] + at + k, vf_add(vf_load(op->in[0] + at + k), vf_load(op->in[1] + at + k)));
    return 1;
}

static int op_silu_mul(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = 0; k < stride; k += 16)
        vf_store(op->out[0] + at + k, vf_mul(silu(vf_load(op->in[0] + at + k)), vf_load(op->in[1] + at + k)));
    return 1;
}

static int copy_row(const struct fd_op *op, int64_t to, int64_t from)
{
    int64_t stride = fd_stride(op->width);
    memcpy(op->out[0] + to * stride, op->in[0] + from * stride, (size_t)stride * sizeof(float));
    return 1;
}
static int op_copy(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return copy_row(op, row, row); }
static int op_read(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return copy_row(op, row, pass->read_rows[row]); }

static int op_embedding(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width);
    float *out = op->out[0] + row * stride;
    if (pass->tokens) { unpack_row(op->weights[0], pass->tokens[row], out); return 1; }
    memcpy(out, pass->inputs + row * op->width, (size_t)op->width * sizeof *out);
    for (int64_t k = op->width; k < stride; k++) out[k] = 0.0f;
    return 1;
}
