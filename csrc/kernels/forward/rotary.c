/* rotary.c - rotary positions, split-half form: (a, b) -> (a cos - b sin, b cos + a sin), halves of each head.
 *
 * Only the first rotary_dim numbers of a head turn.  angle = float(position) * inverse frequency, one f32 product, as the models were trained; its sine and cosine are
 * computed in double (Cody-Waite reduction by pi/2 in two parts: 33 bits, so that k times it is exact for k < 2^20, and
 * the next 53) and rounded once.  Series to r^15 and r^16 on |r| <= pi/4: remainder below 5e-17.
 */
#pragma once
#include "../tile.h"

static void sine_cosine(float angle, float *sine, float *cosine)
{
    double x = angle, k = rint(x * 0.63661977236758134308);
    double r = (x - k * 1.57079632673412561417) - k * 6.07710050650619224932e-11, z = r * r;
    double s = r * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800
             + z * (1.0 / 6227020800.0 + z * (-1.0 / 1307674368000.0))))))));
    double c = 1 + z * (-1.0 / 2 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800
             + z * (1.0 / 479001600.0 + z * (-1.0 / 87178291200.0 + z * (1.0 / 20922789888000.0))))))));
    switch ((int64_t)k & 3) {
    case 0: *sine = (float)s; *cosine = (float)c; break;
    case 1: *sine = (float)c; *cosine = (float)-s; break;
    case 2: *sine = (float)-s; *cosine = (float)-c; break;
    default: *sine = (float)-c; *cosine = (float)s;
    }
}

static int op_rotary_table(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t half = op->rotary_dim / 2, at = row * fd_stride(half);
    const float *frequencies = op->vectors[pass->keys[0].caches[pass->sequences[row]].is_long];
    for (int64_t i = 0; i < half; i++) {
        float sine, cosine;
        sine_cosine((float)pass->positions[row] * frequencies[i], &sine, &cosine);
        op->out[0][at + i] = cosine * op->scalar;
        op->out[1][at + i] = sine * op->scalar;
    }
    return 1;
}

/* back: by minus the angle */
FD_INLINE int rotary_turn(const int back, const struct fd_op *op, int64_t row)
{
    int64_t half = op->rotary_dim / 2, heads = op->width / op->head_dim, table = row * fd_stride(half), at = row * fd_stride(op->width);
    const float *cosine = op->in[1] + table, *sine = op->in[2] + table;
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t i = 0; i < half; i += 16) {
            int64_t first = at + head * op->head_dim + i, second = first + half, n = half - i;
            vf a = vf_load_part(op->in[0] + first, n, 0.0f), b = vf_load_part(op->in[0] + second, n, 0.0f);
            vf c = vf_load_part(cosine + i, n, 0.0f), s = vf_load_part(sine + i, n, 0.0f);
            if (back) s = vf_sub(vf_zero(), s);
            vf_store_part(op->out[0] + first, n, vf_fnma(b, s, vf_mul(a, c)));
            vf_store_part(op->out[0] + second, n, vf_fma(a, s, vf_mul(b, c)));
        }
        for (int64_t k = at + head * op->head_dim + op->rotary_dim; k < at + (head + 1) * op->head_dim; k++) op->out[0][k] = op->in[0][k];
    }
    for (int64_t k = op->width; k < fd_stride(op->width); k++) op->out[0][at + k] = 0.0f;
    return 1;
}
static int op_rotary(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return rotary_turn(0, op, row); }
static int op_rotary_gradient(const struct fd_op *op, const struct fd_pass *pass, int64_t row) { return rotary_turn(1, op, row); }
