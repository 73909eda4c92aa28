/* draft_and_verify.c - several steps of a static unmasking schedule from one forward.
 *
 * A step is a function of a state and of what the model says there: the `quota` best of the positions in its window that are masked
 * and have a score get their tokens.  Which they are is a set, so a heap of the best is enough (best.c) and nothing is sorted.
 * A guess is right where it is what the step makes of the state before it; what the first wrong one should have been is the first
 * draft, so it is made in its place.
 */
#pragma once
#include <string.h>
#include "../../base.h"
#include "../verify/best.c"

enum { DRAFT_START, DRAFT_END, DRAFT_QUOTA, DRAFT_FIELDS };

/* state, tokens, scores (n,) -> next (n,); keys (n,).  Returns -1, or the first position that would get the mask token. */
static int64_t draft_step(int64_t n, const int32_t *state, const int32_t *tokens, const float *scores, const int32_t *step,
                          int32_t mask_token, int32_t *next, uint64_t *keys)
{
    int64_t begin = step[DRAFT_START], end = step[DRAFT_END], wrong = n;
    struct best best = {keys, 0, fd_min(step[DRAFT_QUOTA], end - begin)};
    memcpy(next, state, (size_t)n * sizeof *next);
    if (best.room == 0) return -1;
    for (int64_t at = begin; at < end; at++)
        if (state[at] == mask_token && scores[at] == scores[at]) best_offer(&best, best_key(best_rank(scores[at]), (uint64_t)at));
    for (int64_t i = 0; i < best.count; i++) {
        int64_t at = (uint32_t)keys[i];
        next[at] = tokens[at];
        if (tokens[at] == mask_token) wrong = fd_min(wrong, at);
    }
    return wrong < n ? wrong : -1;
}

static int64_t draft_and_verify(int64_t branches, int64_t n, int64_t count, const int32_t *states, const int32_t *tokens,
                                const float *scores, const int32_t *steps, int32_t mask_token, int64_t drafts, int32_t *drafted,
                                uint64_t *workspace)
{
    for (int64_t i = 0; i < count; i++) {
        const int32_t *step = steps + i * DRAFT_FIELDS;
        if (step[DRAFT_START] < 0 || step[DRAFT_END] < step[DRAFT_START] || step[DRAFT_END] > n || step[DRAFT_QUOTA] < 0) return -1 - i;
    }
    int64_t branch = 0, made = 0;                      /* drafts */
    while (branch + made < count && made < drafts) {
        const int32_t *state = made ? drafted + (made - 1) * n : states + branch * n;
        int32_t *next = drafted + made * n;
        int64_t wrong = draft_step(n, state, tokens + branch * n, scores + branch * n, steps + (branch + made) * DRAFT_FIELDS, mask_token,
                                   next, workspace);
        if (wrong >= 0) return -1 - count - (branch * n + wrong);
        if (made == 0 && branch + 1 < branches && !memcmp(next, states + (branch + 1) * n, (size_t)n * sizeof *next)) branch++;
        else made++;
    }
    return branch;
}
