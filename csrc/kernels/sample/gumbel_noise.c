/* gumbel_noise.c - Gumbel noise for every token of a vocabulary, from a key and nothing else.
 *
 * Token t's word r is word t % 4 of Philox under key = seed and counter = { purpose 3 bits | t / 4 29 bits, position,
 * round 20 bits | index 12 bits, sequence }: no two draws within these ranges share a counter.  With v = (r + 1/2) 2^-32,
 * g = -log E, E = -log1p(-v).  Both ends keep their relative accuracy: below v = 1/2, u = 1 - v rounds, by d <= 2^-25, and
 * E = -(log u + d) (d / u would be 2^-24 E nearer); from there on, u = (~r + 1/2) 2^-32 and E = -log u.
 * With log within 2 ulp, g is within 2^-21 + 2^-22 |g|.
 */
#pragma once
#include "../tile.h"
#include "philox.c"

enum { GUMBEL_BLOCK = 64 };                  /* tokens of 16 counters */
static const float gumbel_most = 22.9f;      /* v >= 2^-33: g <= 33 log 2 */

struct gumbel { uint32_t key[2], counter[4]; };
static struct gumbel gumbel_start(const struct fd_chance *chance, int32_t position)
{
    struct gumbel g = {{(uint32_t)chance->seed, (uint32_t)(chance->seed >> 32)},
                       {chance->purpose << 29, (uint32_t)position, chance->round << 12 | chance->index, chance->sequence}};
    return g;
}

static void gumbel_words(const struct gumbel *g, vi quads, vi words[4])          /* quads: token / 4 */
{
    words[0] = vi_or(vi_set1((int32_t)g->counter[0]), quads);
    FD_UNROLL for (int w = 1; w < 4; w++) words[w] = vi_set1((int32_t)g->counter[w]);
    philox_lanes(words, g->key[0], g->key[1]);
}
static inline vf gumbel_uniform(vi r)        /* (r + 1/2) 2^-32, rounded once: both halves of r, one with its 1/2, are exact */
{
    vf low = vf_add(vf_from_int(vi_and(r, vi_set1(0xffff))), vf_set1(0.5f));
    return vf_mul(vf_fma(vf_from_int(vi_shr(r, 16)), vf_set1(65536.0f), low), vf_set1(0x1p-32f));
}
static inline vf gumbel_of(vi r)
{
    vm upper = vi_less(r, vi_set1(0));                                           /* v >= 1/2 */
    vf one = vf_set1(1.0f), v = gumbel_uniform(r), u = vf_sub(one, v);
    vf d = vf_select(upper, vf_zero(), vf_sub(vf_sub(one, u), v));
    u = vf_select(upper, gumbel_uniform(vi_xor(r, vi_set1(-1))), u);
    return vf_sub(vf_zero(), vf_log(vf_sub(vf_zero(), vf_add(vf_log(u), d))));
}
/* A cheap bound, over four words: g <= -log v, and log2 v >= its bits read as a number.  The margin covers every rounding. */
static inline vf gumbel_bound(const vi words[4])
{
    vi flip = vi_set1(0x7fffffff), r = vi_xor(words[0], flip);                   /* the smallest word is the largest flipped */
    FD_UNROLL for (int w = 1; w < 4; w++) r = vi_max(r, vi_xor(words[w], flip));
    vf log2_v = vf_fma(vf_from_int(vi_of_bits(gumbel_uniform(vi_xor(r, flip)))), vf_set1(0x1p-23f), vf_set1(-127.0f));
    return vf_fnma(log2_v, vf_set1(0.693147182f), vf_set1(1e-3f));
}
static void gumbel_block(const vi words[4], float *noise)                        /* (GUMBEL_BLOCK,), in token order */
{
    float lanes[4][16];
    FD_UNROLL for (int w = 0; w < 4; w++) vf_store(lanes[w], gumbel_of(words[w]));
    for (int lane = 0; lane < 16; lane++)
        FD_UNROLL for (int w = 0; w < 4; w++) noise[4 * lane + w] = lanes[w][lane];
}
static vi gumbel_quads(int64_t token) { return vi_add(vi_set1((int32_t)(token / 4)), vi_iota()); }

static void gumbel_noise(int64_t rows, int64_t vocab, const int32_t *positions, const struct fd_chance *chance, float *noise)
{
    for (int64_t row = 0; row < rows; row++) {
        struct gumbel g = gumbel_start(chance, positions[row]);
        for (int64_t token = 0; token < vocab; token += GUMBEL_BLOCK) {
            vi words[4];
            float block[GUMBEL_BLOCK];
            gumbel_words(&g, gumbel_quads(token), words);
            gumbel_block(words, block);
            memcpy(noise + row * vocab + token, block, (size_t)fd_min(GUMBEL_BLOCK, vocab - token) * sizeof *block);
        }
    }
}
