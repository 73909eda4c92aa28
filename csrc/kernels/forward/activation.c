/* activation.c - functions of one number: between the linears of a feed-forward network, and what bounds a score. */
#pragma once
#include "../tile.h"

static vf silu(vf x)                     /* x / (1 + e^-x) */
{
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

/* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x / (1 + e^-2y) of tanh's argument y: as silu, so no small result is the rest of
 * two larger ones. */
static vf gelu_tanh(vf x)
{
    vf square = vf_mul(x, x), twice = vf_mul(x, vf_fma(square, vf_set1(-0.0713548162726f), vf_set1(-1.59576912160573f)));
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(twice)));
}

/* Phi(x), the normal distribution function, of e^(-x^2 / 2).  Phi(-t) = e^(-t^2 / 2) R(t): R, half of erfcx(t / sqrt 2), is a polynomial in
 * u = 1 / (1 + 0.275 t), fitted for 0 <= t <= 13.2 to 4e-8 of itself; below that the exponential is 0. */
static vf normal_below(vf x, vf bell)
{
    static const float r[] = {1.18294702e-05f, 0.10946396f, 0.111849494f, 0.0912639275f, 0.112479709f, 0.0220618527f, 0.0480199754f,
                              0.0651063249f, -0.0819678977f, 0.0217108391f};
    vf t = vf_abs(x), one = vf_set1(1.0f), u = vf_div(one, vf_fma(t, vf_set1(0.275f), one)), p = vf_set1(r[9]);
    for (int i = 8; i >= 0; i--) p = vf_fma(p, u, vf_set1(r[i]));
    vf tail = vf_mul(p, bell);
    return vf_where_less(x, vf_zero(), tail, vf_sub(one, tail));
}
static vf normal_bell(vf x) { return fd_exp_negative(vf_mul(vf_mul(x, x), vf_set1(-0.5f))); }            /* e^(-x^2 / 2) */
static vf gelu(vf x) { return vf_mul(x, normal_below(x, normal_bell(x))); }                              /* x Phi(x) */

static vf soft_capped(vf x, float most)                                  /* most tanh(x / most) */
{
    return vf_mul(vf_set1(most), vf_tanh(vf_div(x, vf_set1(most))));
}

static vf sigmoid(vf x) { return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x)))); }

static vf relu(vf x) { return vf_max(vf_zero(), x); }                                                   /* operand order lets NaN through */

static inline vf activation(int32_t which, vf x)                         /* enum fd_activation */
{
    switch (which) {
    case FD_SILU: return silu(x);
    case FD_GELU: return gelu(x);
    case FD_GELU_TANH: return gelu_tanh(x);
    case FD_RELU: return relu(x);
    case FD_TANH: return vf_tanh(x);
    default: return x;
    }
}
