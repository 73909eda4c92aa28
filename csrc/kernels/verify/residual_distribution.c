/* residual_distribution.c - what is left of one law when another has been refused: r = max(a p - q, 0), and its sum.
 *
 * One fma an element: where a p equals q, or p is 0, r is +0.  The sum is one of doubles: chunks of FD_CHUNK in 16 lanes, folded
 * once, chunks in order.  The chunks' sums can be kept, and a token then be found by its cumulated mass in one of them.
 * An entry is bad when it is negative, infinite or NaN.  As unsigned bits all of these are above the finite numbers, and so is -0,
 * which is good: where bits are found, the row is looked at again, entry by entry.
 */
#pragma once
#include "../tile.h"

enum { RESIDUAL_INFINITY = 0x7f800000 };               /* its bits */
struct residual { double mass; int good; };

static inline int residual_entry_is_good(float x) { return x >= 0.0f && x < INFINITY; }
static int residual_row_is_good(int64_t vocab, const float *row)
{
    for (int64_t i = 0; i < vocab; i++)
        if (!residual_entry_is_good(row[i])) return 0;
    return 1;
}
static uint32_t residual_most(vi bits)
{
    int32_t lanes[16];
    uint32_t most = 0;
    vi_store(lanes, bits);
    for (int i = 0; i < 16; i++) most = (uint32_t)lanes[i] > most ? (uint32_t)lanes[i] : most;
    return most;
}
static inline vf residual_of(vf a, vf p, vf q) { return vf_sub(vf_zero(), vf_min(vf_fnma(a, p, q), vf_zero())); }

/* r apart from p and q; sums (ceil(vocab / FD_CHUNK),) or NULL. */
static struct residual residual_row(int64_t vocab, float a, const float *p, const float *q, float *r, double *sums)
{
    struct residual found = {0.0, 1};
    vf factor = vf_set1(a);
    vi bits = vi_set1(0);
    for (int64_t chunk = 0; chunk < vocab; chunk += FD_CHUNK) {
        int64_t end = fd_min(chunk + FD_CHUNK, vocab), i = chunk;
        vd sum = vd_zero();
        for (; i + 16 <= end; i += 16) {
            vf pi = vf_load(p + i), qi = vf_load(q + i), ri = residual_of(factor, pi, qi);
            bits = vi_max_unsigned(bits, vi_max_unsigned(vi_of_bits(pi), vi_of_bits(qi)));
            vf_store(r + i, ri);
            sum = vd_add_floats(sum, ri);
        }
        if (i < end) {
            vf pi = vf_load_part(p + i, end - i, 0.0f), qi = vf_load_part(q + i, end - i, 0.0f), ri = residual_of(factor, pi, qi);
            bits = vi_max_unsigned(bits, vi_max_unsigned(vi_of_bits(pi), vi_of_bits(qi)));
            vf_store_part(r + i, end - i, ri);
            sum = vd_add_floats(sum, ri);
        }
        double mass = vd_sum(sum);
        found.mass += mass;
        if (sums) sums[chunk / FD_CHUNK] = mass;
    }
    if (residual_most(bits) >= RESIDUAL_INFINITY) found.good = residual_row_is_good(vocab, p) && residual_row_is_good(vocab, q);
    return found;
}
static int residual_distribution(int64_t vocab, double a, const float *p, const float *q, float *r, double *mass)
{
    struct residual found = residual_row(vocab, (float)a, p, q, r, NULL);
    *mass = found.mass;
    return found.good && found.mass < INFINITY ? FD_OK : FD_NOT_FINITE;       /* a p may overflow */
}
