/* top_k.c - the k largest logits of each row, the largest first; of equal ones the lowest tokens.
 *
 * 16 logits at a time are compared with the worst of the best so far, and few are better.  A row of which fewer than k are numbers ends in
 * bans, the lowest tokens first.  NaN, +inf and a row of bans alone are not finite.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "../verify/best.c"

struct top_k { int64_t vocab, k; const float *logits; int32_t *tokens; float *values; uint64_t *workspace; _Atomic int bad; };
static void top_k_rows(void *context, int64_t begin, int64_t end)
{
    struct top_k *t = context;
    for (int64_t row = begin; row < end; row++) {
        const float *z = t->logits + row * t->vocab;
        struct best best = {t->workspace + row * t->k, 0, t->k};
        float worst = -INFINITY;
        vf sum = vf_zero(), zero = vf_zero();
        for (int64_t i = 0; i < t->vocab; i += 16) {
            vf v = vf_load_part(z + i, t->vocab - i, -INFINITY);
            sum = vf_add(sum, vf_mul(vf_max(vf_set1(-1.0f), v), zero));                    /* NaN of NaN and of +inf */
            uint32_t better = vm_bits(vf_less(vf_set1(worst), v));
            if (!better) continue;
            float lanes[16];
            vf_store(lanes, v);
            for (; better; better &= better - 1) {
                int lane = __builtin_ctz(better);
                best_offer(&best, best_key(best_rank(lanes[lane]), (uint64_t)(i + lane)));
            }
            if (best.count == best.room) worst = best_score(best.keys[0]);
        }
        float nothing = vf_sum(sum);
        if (nothing != nothing || best.count == 0) atomic_store(&t->bad, 1);
        for (int64_t i = 0; i < t->vocab && best.count < t->k; i++)
            if (z[i] == -INFINITY) best_offer(&best, best_key(best_rank(-INFINITY), (uint64_t)i));
        best_sort(&best);
        for (int64_t j = 0; j < best.count; j++) {
            t->tokens[row * t->k + j] = (int32_t)(uint32_t)best.keys[j];
            t->values[row * t->k + j] = z[(uint32_t)best.keys[j]];
        }
    }
}
static int top_k(int64_t rows, int64_t vocab, int64_t k, const float *logits, int32_t *tokens, float *values, uint64_t *workspace,
                 int threads)
{
    struct top_k job = {vocab, k, logits, tokens, values, workspace, 0};
    fd_parallel_for(threads, rows, 1, top_k_rows, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
