/* unmask_select.c - which masked positions a step of diffusion decoding commits: the first few of one ranking.
 *
 * Every rule says how many: it passes a position where it passes all that rank before it, so rules are bounds on a prefix.  The keys
 * of best.c rank by score, ties by position; -0 ties with 0.  Scores are compared as they are, in float32: nothing here rounds but
 * the score itself (three subtractions and two exponentials for a margin, one addition for a bias) and the budget's sum, in rank order.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "../verify/best.c"

struct unmask_select {
    int64_t n;
    const int8_t *masked;
    const float *top, *second, *log_sum_exp, *entropy, *log_prob, *given, *bias;
    const int8_t *also;
    const int32_t *quota;
    const float *bounds;
    const struct fd_unmask_rule *rule;
    int8_t *chosen;
    int32_t *count, *ranks;
    float *confidence;
    uint64_t *workspace;
};
static vf unmask_score(const struct unmask_select *u, int64_t at, int64_t left)            /* of 16 positions, or of those left */
{
    vf score;
    if (u->given) score = vf_load_part(u->given + at, left, 0.0f);
    else if (u->rule->score == FD_ENTROPY) score = vf_sub(vf_zero(), vf_load_part(u->entropy + at, left, 0.0f));
    else if (u->rule->score == FD_CONFIDENCE) score = vf_load_part(u->log_prob + at, left, 0.0f);
    else {
        vf total = vf_load_part(u->log_sum_exp + at, left, 0.0f);
        vf best = vf_exp(vf_sub(vf_load_part(u->top + at, left, 0.0f), total));
        score = vf_sub(best, vf_exp(vf_sub(vf_load_part(u->second + at, left, 0.0f), total)));
    }
    return u->bias ? vf_add(score, vf_load_part(u->bias + at, left, 0.0f)) : score;
}
/* How many of the ranked keys pass threshold, factor and budget; a comparison with NaN passes a bound, and no budget. */
static int64_t unmask_passing(const struct unmask_select *u, int64_t eligible, const uint64_t *keys, const float *confidence,
                              const float *entropy)
{
    double sum = 0.0, most = 0.0;
    for (int64_t rank = 0; rank < eligible; rank++) {
        int64_t i = (int64_t)(uint32_t)keys[rank];
        if (confidence[i] < u->rule->threshold || (u->bounds && confidence[i] <= u->bounds[rank])) return rank;
        if (u->rule->budget < 0.0) continue;
        sum += (double)entropy[i];
        most = rank == 0 || (double)entropy[i] > most ? (double)entropy[i] : most;
        if (!(sum - most <= u->rule->budget)) return rank;
    }
    return eligible;
}
static void unmask_select_rows(void *context, int64_t begin, int64_t end)
{
    struct unmask_select *u = context;
    const struct fd_unmask_rule *rule = u->rule;
    for (int64_t row = begin; row < end; row++) {
        int64_t n = u->n, at = row * n;
        const int8_t *masked = u->masked + at, *also = u->also ? u->also + at : NULL;                     /* (n,) */
        const float *entropy = u->entropy ? u->entropy + at : NULL;                                      /* (n,) */
        int8_t *chosen = u->chosen + at;                                                                 /* (n,) */
        int32_t *ranks = u->ranks + at;                                                                  /* (n,) */
        float *confidence = u->confidence + at;                                                          /* (n,) */
        struct best best = {u->workspace + at, 0, n};
        for (int64_t i = 0; i < n; i += 16) vf_store_part(confidence + i, n - i, unmask_score(u, at + i, n - i));
        for (int64_t i = 0; i < n; i++) {
            ranks[i] = -1;
            if (masked[i] && confidence[i] == confidence[i]) best_offer(&best, best_key(best_rank(confidence[i]), (uint64_t)i));
            else confidence[i] = NAN;
        }
        best_sort(&best);
        for (int64_t rank = 0; rank < best.count; rank++) ranks[(uint32_t)best.keys[rank]] = (int32_t)rank;

        int64_t limit = fd_min(best.count, rule->most), explored = -1;
        if (u->quota) limit = fd_min(limit, u->quota[row]);
        int64_t taken = fd_min(unmask_passing(u, best.count, best.keys, confidence, entropy), limit);
        if (taken < fd_min(rule->explore, limit)) {
            float highest = -INFINITY;                                                      /* NaN is never above it */
            for (int64_t i = 0; i < n; i++)
                if (ranks[i] >= taken && entropy[i] > highest) { highest = entropy[i]; explored = i; }
        }
        if (explored < 0 && taken < rule->least) taken = fd_min(rule->least, limit);
        int32_t count = 0;
        for (int64_t i = 0; i < n; i++) {
            chosen[i] = ranks[i] >= 0 && (ranks[i] < taken || i == explored || (also && also[i]));
            count += chosen[i];
        }
        u->count[row] = count;
    }
}
static void unmask_select(int64_t rows, int64_t n, const int8_t *masked, const float *top, const float *second,
                          const float *log_sum_exp, const float *entropy, const float *log_prob, const float *given, const float *bias, const int8_t *also,
                          const int32_t *quota, const float *bounds, const struct fd_unmask_rule *rule, int8_t *chosen, int32_t *count,
                          int32_t *ranks, float *confidence, uint64_t *workspace, int threads)
{
    struct unmask_select job = {n, masked, top, second, log_sum_exp, entropy, log_prob, given, bias, also, quota, bounds, rule, chosen, count,
                                ranks, confidence, workspace};
    fd_parallel_for(threads, rows, 1 + 8192 / (n + 1), unmask_select_rows, &job);      /* some 8192 positions a piece: 40 us */
}
