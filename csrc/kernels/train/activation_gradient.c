/* activation_gradient.c - slopes of the functions of one number, and gradients by what they read. */
#pragma once
#include "../forward/activation.c"

static vf silu_slope(vf x)               /* s (1 + x (1 - s)) of s = sigmoid(x) */
{
    vf one = vf_set1(1.0f), s = sigmoid(x);
    return vf_mul(s, vf_fma(x, vf_sub(one, s), one));
}

static vf gelu_slope(vf x)               /* Phi(x) + x e^(-x^2 / 2) / sqrt(2 pi) */
{
    vf bell = normal_bell(x);
    return vf_fma(vf_mul(x, vf_set1(0.398942280401f)), bell, normal_below(x, bell));
}

/* s + x s (1 - s) 2 u' of s = sigmoid(2 u), 2 u = sqrt(8 / pi) (x + 0.044715 x^3).  Beyond 16, s is 0 or 1, and there no square overflows. */
static vf gelu_tanh_slope(vf x)
{
    x = vf_max(vf_set1(-16.0f), vf_min(vf_set1(16.0f), x));                                             /* operand order lets NaN through */
    vf one = vf_set1(1.0f), square = vf_mul(x, x), root = vf_set1(1.59576912160573f);
    vf s = sigmoid(vf_mul(x, vf_fma(square, vf_set1(0.0713548162726f), root)));
    return vf_mul(s, vf_fma(vf_mul(x, vf_sub(one, s)), vf_fma(square, vf_set1(0.214064448818f), root), one));
}

static vf relu_slope(vf x) { return vf_where_less(vf_zero(), x, vf_set1(1.0f), relu(x)); }       /* of what is not above 0, 0 or NaN */

static vf tanh_slope(vf x)               /* 1 - tanh(x)^2 */
{
    vf t = vf_tanh(x);
    return vf_fnma(t, t, vf_set1(1.0f));
}

static inline vf activation_slope(int32_t which, vf x)                   /* enum fd_activation */
{
    switch (which) {
    case FD_SILU: return silu_slope(x);
    case FD_GELU: return gelu_slope(x);
    case FD_GELU_TANH: return gelu_tanh_slope(x);
    case FD_RELU: return relu_slope(x);
    case FD_TANH: return tanh_slope(x);
    default: return vf_set1(1.0f);
    }
}

static int op_activation_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = at; k < at + stride; k += FD_LANES)
        vf_store(op->out[0] + k, vf_mul(activation_slope(op->activation, vf_load(op->in[0] + k)), vf_load(op->in[1] + k)));
    return 1;
}

static int op_gated_gate_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = at; k < at + stride; k += FD_LANES) {
        vf slope = vf_mul(activation_slope(op->activation, vf_load(op->in[0] + k)), vf_load(op->in[1] + k));
        vf_store(op->out[0] + k, vf_mul(slope, vf_load(op->in[2] + k)));
    }
    return 1;
}

static int op_sigmoid_mul_share_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    float *out = op->out[0] + row * fd_stride(1);
    vf sum = vf_zero(), s = sigmoid(vf_set1(op->in[1][row * fd_stride(1)]));
    for (int64_t k = at; k < at + stride; k += FD_LANES) sum = vf_fma(vf_load(op->in[0] + k), vf_load(op->in[2] + k), sum);
    s = vf_mul(vf_mul(s, vf_sub(vf_set1(1.0f), s)), vf_set1(vf_sum(sum)));
    for (int64_t k = 0; k < fd_stride(1); k += FD_LANES) vf_store(out + k, vf_zero());
    vf_store_part(out, 1, s);
    return 1;
}

static int op_softcap_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t stride = fd_stride(op->width), at = row * stride;
    for (int64_t k = at; k < at + stride; k += FD_LANES) {
        vf slope = tanh_slope(vf_div(vf_load(op->in[0] + k), vf_set1(op->softcap)));
        vf_store(op->out[0] + k, vf_mul(slope, vf_load(op->in[1] + k)));
    }
    return 1;
}
