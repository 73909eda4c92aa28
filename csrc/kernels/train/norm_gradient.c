/* norm_gradient.c - gradients by what a norm reads, and each row's part of that by its weight; a row's moments are made again. */
#pragma once
#include "../forward/elementwise.c"

/* Of n numbers, n = (x - mean) inverse and g = dy weight: (g - mean g - n mean (g n)) inverse, mean g where they are `centred`. */
FD_INLINE void norm_gradient(const int centred, int64_t n, const float *x, const float *dy, float epsilon, const float *weight, float *dx)
{
    float mean, squares = norm_squares(centred, n, x, &mean), scale = norm_inverse(n, squares, epsilon);
    vf inverse = vf_set1(scale), middle = vf_set1(mean), sum = vf_zero(), along = vf_zero();
    for (int64_t k = 0; k < n; k += FD_LANES) {
        vf g = vf_mul(vf_load_part(dy + k, n - k, 0.0f), vf_load_part(weight + k, n - k, 0.0f));
        if (centred) sum = vf_add(sum, g);
        along = vf_fma(g, vf_mul(vf_sub(vf_load_part(x + k, n - k, mean), middle), inverse), along);
    }
    vf mean_g = vf_set1(vf_sum(sum) / (float)n), mean_along = vf_set1(vf_sum(along) / (float)n);
    for (int64_t k = 0; k < n; k += FD_LANES) {
        vf g = vf_mul(vf_load_part(dy + k, n - k, 0.0f), vf_load_part(weight + k, n - k, 0.0f));
        vf normal = vf_mul(vf_sub(vf_load_part(x + k, n - k, mean), middle), inverse);
        if (centred) g = vf_sub(g, mean_g);
        vf_store_part(dx + k, n - k, vf_mul(vf_fnma(normal, mean_along, g), inverse));
    }
}
FD_INLINE void norm_weight_terms(const int centred, int64_t n, const float *x, const float *dy, float epsilon, float *terms)
{
    float mean, squares = norm_squares(centred, n, x, &mean);
    vf inverse = vf_set1(norm_inverse(n, squares, epsilon)), middle = vf_set1(mean);
    for (int64_t k = 0; k < n; k += FD_LANES) {
        vf normal = vf_mul(vf_sub(vf_load_part(x + k, n - k, mean), middle), inverse);
        vf_store_part(terms + k, n - k, vf_mul(vf_load_part(dy + k, n - k, 0.0f), normal));
    }
}

/* Of a row, or of each of its heads: in[0] = x, in[1] = dy; vectors[0] = the weight, where the gradient is that by x. */
FD_INLINE int norm_gradient_row(const int centred, const int by_weight, const struct fd_op *op, int64_t row)
{
    int64_t stride = fd_stride(op->width), n = op->head_dim ? op->head_dim : op->width, at = row * stride;
    const float *x = op->in[0] + at, *dy = op->in[1] + at;
    float *out = op->out[0] + at;
    for (int64_t k = 0; k < op->width; k += n) {
        if (by_weight) norm_weight_terms(centred, n, x + k, dy + k, op->scalar, out + k);
        else norm_gradient(centred, n, x + k, dy + k, op->scalar, op->vectors[0] + (op->heads > 1 ? 0 : k), out + k);
    }
    for (int64_t k = op->width; k < stride; k++) out[k] = 0.0f;
    return 1;
}
#define NORM_GRADIENT(name, centred, by_weight) \
    static int op_##name(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return norm_gradient_row(centred, by_weight, op, row); }
NORM_GRADIENT(rms_norm_gradient, 0, 0)
NORM_GRADIENT(layer_norm_gradient, 1, 0)
NORM_GRADIENT(rms_norm_weight_terms, 0, 1)
NORM_GRADIENT(layer_norm_weight_terms, 1, 1)
