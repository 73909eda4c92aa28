/* elementwise.c - what is done to a row on its own: norms, sum, gate, reading, copies. */
#pragma once
#include "../tile.h"
#include "activation.c"
#include "linear.c"
#include "quantize_rows.c"
#include "unpack.c"

/* Of n numbers: the sum of (x - mean)^2, NaN, or infinite where they are too large; where they are not `centred`, 0 stands for the mean. */
FD_INLINE float norm_squares(const int centred, int64_t n, const float *x, float *mean)
{
    const int64_t whole = n / FD_LANES * FD_LANES, left = n - whole;
    vf sum = vf_zero();
    *mean = 0.0f;
    if (centred) {
        for (int64_t k = 0; k < whole; k += FD_LANES) sum = vf_add(vf_load(x + k), sum);
        if (left) sum = vf_add(vf_load_part(x + whole, left, 0.0f), sum);
        *mean = vf_sum(sum) / (float)n;
        sum = vf_zero();
    }
    for (int64_t k = 0; k < whole; k += FD_LANES) {
        vf v = centred ? vf_sub(vf_load(x + k), vf_set1(*mean)) : vf_load(x + k);
        sum = vf_fma(v, v, sum);
    }
    if (left) {
        vf v = vf_sub(vf_load_part(x + whole, left, *mean), vf_set1(*mean));
        sum = vf_fma(v, v, sum);
    }
    return vf_sum(sum);
}
static inline float norm_inverse(int64_t n, float squares, float epsilon) { return 1.0f / sqrtf(squares / (float)n + epsilon); }

/* y = (x - mean) / sqrt(mean (x - mean)^2 + epsilon) * weight + bias of n numbers, the bias where they are `centred`.  Returns the sum of
 * squares: where it is not finite, y is wrong. */
FD_INLINE vf norm_scaled(const int centred, vf x, float mean, vf inverse, vf weight, vf bias)
{
    return centred ? vf_fma(vf_mul(vf_sub(x, vf_set1(mean)), inverse), weight, bias) : vf_mul(vf_mul(x, inverse), weight);
}
FD_INLINE float normed(const int centred, int64_t n, const float *x, float epsilon, const float *weight, const float *bias, float *y)
{
    const int64_t whole = n / FD_LANES * FD_LANES, left = n - whole;
    float mean, squares = norm_squares(centred, n, x, &mean);
    vf inverse = vf_set1(norm_inverse(n, squares, epsilon)), none = vf_zero();
    for (int64_t k = 0; k < whole; k += FD_LANES)
        vf_store(y + k, norm_scaled(centred, vf_load(x + k), mean, inverse, vf_load(weight + k), centred ? vf_load(bias + k) : none));
    if (left)
        vf_store_part(y + whole, left, norm_scaled(centred, vf_load_part(x + whole, left, 0.0f), mean, inverse,
                                                   vf_load_part(weight + whole, left, 0.0f),
                                                   centred ? vf_load_part(bias + whole, left, 0.0f) : none));
    return squares;
}
/* Of a row, or of each of its heads, which may share the weight and the bias. */
FD_INLINE int norm_row(const int centred, const struct fd_op *op, int64_t row)
{
    int64_t stride = fd_stride(op->width), n = op->head_dim ? op->head_dim : op->width, at = row * stride;
    const float *weight = op->vectors[0], *bias = centred ? op->vectors[1] : weight;
    int finite = 1;
    for (int64_t k = 0; k < op->width; k += n) {
        int64_t own = op->heads > 1 ? 0 : k;
        finite &= normed(centred, n, op->in[0] + at + k, op->scalar, weight + own, bias + own, op->out[0] + at + k) < INFINITY;
    }
    for (int64_t k = op->width; k < stride; k++) op->out[0][at + k] = 0.0f;
    if (!finite) return 0;
    return op->codes_out ? quantize_row(op->width, op->out[0] + at, row, op->codes_out) : 1;
}
static int op_rms_norm(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return norm_row(0, op, row); }
static int op_layer_norm(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return norm_row(1, op, row); }

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

static int op_scale(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = 0; k < stride; k += 16) vf_store(op->out[0] + at + k, vf_mul(vf_load(op->in[0] + at + k), vf_set1(op->scalar)));
    return 1;
}

static int op_activation(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = 0; k < stride; k += 16) vf_store(op->out[0] + at + k, activation(op->activation, vf_load(op->in[0] + at + k)));
    return 1;
}

static int op_gated(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = 0; k < stride; k += 16)
        vf_store(op->out[0] + at + k, vf_mul(activation(op->activation, vf_load(op->in[0] + at + k)), vf_load(op->in[1] + at + k)));
    return 1;
}

static int op_softcap(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = 0; k < stride; k += 16) vf_store(op->out[0] + at + k, soft_capped(vf_load(op->in[0] + at + k), op->softcap));
    return 1;
}

static int op_sigmoid_mul(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    vf share = sigmoid(vf_set1(op->in[1][row * fd_stride(1)]));
    for (int64_t k = 0; k < stride; k += 16) vf_store(op->out[0] + at + k, vf_mul(vf_load(op->in[0] + at + k), share));
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
    if (pass->tokens) {
        int32_t token = pass->tokens[op->first * pass->rows + row];
        if (token >= 0) unpack_row(op->weights[0], token, out);
        else memset(out, 0, (size_t)stride * sizeof *out);
        return 1;
    }
    memcpy(out, pass->inputs + row * op->width, (size_t)op->width * sizeof *out);
    for (int64_t k = op->width; k < stride; k++) out[k] = 0.0f;
    return 1;
}
static int op_position_embedding(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    unpack_row(op->weights[0], pass->positions[row], op->out[0] + row * fd_stride(op->width));
    return 1;
}
