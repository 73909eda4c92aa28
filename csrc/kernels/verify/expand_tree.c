/* expand_tree.c - the best continuations of a tree's frontier: tokens of any row by the score of the path that they end.
 *
 * score = scores[row] + (z - log sum exp of the row), two roundings, the second term as row_statistics has it.  A row keeps its own
 * `count` best: 16 scores at a time are compared with the worst of them, and few are better.  Rows then merge.  The index of a
 * candidate is row * vocab + token: ties go to the lowest row, then to the lowest token.
 */
#pragma once
#include "../../threads.h"
#include "../forward/row_statistics.c"
#include "../tile.h"
#include "best.c"

struct expand_tree { int64_t vocab, room; const float *logits, *scores; uint64_t *keys; _Atomic int bad; };
static void expand_tree_rows(void *context, int64_t begin, int64_t end)
{
    struct expand_tree *e = context;
    for (int64_t row = begin; row < end; row++) {
        const float *z = e->logits + row * e->vocab;
        struct best best = {e->keys + row * e->room, 0, e->room};
        int32_t argmax;
        float top, second, log_sum_exp, entropy, log_prob;
        int finite = statistics_result(statistics_of_row(z, e->vocab), &argmax, &top, &second, &log_sum_exp, &entropy,
                                       &log_prob);
        if (!finite || !isfinite(e->scores[row])) atomic_store(&e->bad, 1);
        vf total = vf_set1(log_sum_exp), before = vf_set1(e->scores[row]);
        float worst = -INFINITY;                       /* a score of -inf is never a candidate */
        for (int64_t i = 0; i < e->vocab && finite; i += 16) {
            vf score = vf_add(before, vf_sub(vf_load_part(z + i, e->vocab - i, -INFINITY), total));
            uint32_t better = vm_bits(vf_less(vf_set1(worst), score));
            if (!better) continue;
            float lanes[16];
            vf_store(lanes, score);
            for (; better; better &= better - 1) {
                int lane = __builtin_ctz(better);
                best_offer(&best, best_key(best_rank(lanes[lane]), (uint64_t)(row * e->vocab + i + lane)));
            }
            if (best.count == best.room) worst = best_score(best.keys[0]);
        }
        while (best.count < best.room) best.keys[best.count++] = UINT64_MAX;     /* no finite score has this rank */
    }
}
static int expand_tree(int64_t frontier, int64_t vocab, const float *logits, const float *scores, int64_t count, int32_t *tokens,
                       int32_t *rows, float *expanded, int64_t *found, uint64_t *workspace, int threads)
{
    int64_t room = fd_min(count, vocab);
    struct expand_tree job = {vocab, room, logits, scores, workspace, 0};
    struct best best = {workspace + frontier * room, 0, count};
    *found = 0;
    fd_parallel_for(threads, frontier, 1, expand_tree_rows, &job);
    if (atomic_load(&job.bad)) return FD_NOT_FINITE;
    for (int64_t i = 0; i < frontier * room; i++)
        if (workspace[i] != UINT64_MAX) best_offer(&best, workspace[i]);
    best_sort(&best);
    for (int64_t i = 0; i < best.count; i++) {
        int64_t index = (int64_t)(uint32_t)best.keys[i];
        rows[i] = (int32_t)(index / vocab);
        tokens[i] = (int32_t)(index % vocab);
        expanded[i] = best_score(best.keys[i]);
    }
    *found = best.count;
    return FD_OK;
}
