/* draft_and_verify.c - schedules of unmasking, right and wrong ones, beside steps that look for the best anew each time. */
#include "kernels/unmask/draft_and_verify.c"

/* The state after a step; the lowest position that would get the mask token, or -1. */
static int64_t plain_step(int64_t n, const int32_t *state, const int32_t *tokens, const float *scores, const int32_t *step, int32_t mask,
                          int32_t *next)
{
    int64_t wrong = n;
    memcpy(next, state, (size_t)n * 4);
    for (int32_t taken = 0; taken < step[2]; taken++) {
        int64_t best = -1;
        for (int64_t i = step[0]; i < step[1]; i++)
            if (state[i] == mask && scores[i] == scores[i] && next[i] == mask && (best < 0 || scores[i] > scores[best])) best = i;
        if (best < 0) break;
        if (tokens[best] == mask) wrong = fd_min(wrong, best);
        next[best] = tokens[best] == mask ? ~mask : tokens[best];                /* not to be taken again */
    }
    return wrong < n ? wrong : -1;
}

static void fuzz_draft_and_verify(struct input *in)
{
    int64_t n = take_between(in, 0, 24), count = take_between(in, 0, 8), branches = take_between(in, 1, count + 1),
            drafts = fd_min(take_between(in, 1, 10), count), at = 0;
    int32_t mask = take_integer(in), *states = filled(branches * n, 4), *tokens = take_integers(in, branches * n),
            *steps = filled(count * 3, 4), *drafted = room(drafts * n, 4), *next = filled(n, 4);
    float *scores = take_reals(in, branches * n);
    uint64_t *workspace = room(n, 8);
    int honest = take_flag(in);
    for (int64_t i = 0; i < count * 3; i += 3) {
        steps[i] = (int32_t)(honest ? take_between(in, 0, n) : take_integer(in));
        steps[i + 1] = (int32_t)(honest ? take_between(in, steps[i], n) : take_integer(in));
        steps[i + 2] = (int32_t)(honest ? take_between(in, 0, n + 1) : take_integer(in));
    }
    for (int64_t i = 0; i < branches * n; i++) {       /* half of them masked; or what the step before makes of it */
        int32_t token = take_integer(in);
        states[i] = token & 1 ? mask : token;
    }
    for (int64_t i = 0; i < count; i++)
        if (steps[3 * i] < 0 || steps[3 * i + 1] < steps[3 * i] || steps[3 * i + 1] > n || steps[3 * i + 2] < 0) {
            HOLDS(draft_and_verify(branches, n, count, states, tokens, scores, steps, mask, drafts, drafted, workspace) == -1 - i);
            return;
        }
    for (int64_t branch = 1; branch < branches; branch++)
        if (take_flag(in))
            plain_step(n, states + (branch - 1) * n, tokens + (branch - 1) * n, scores + (branch - 1) * n, steps + 3 * (branch - 1), mask,
                       states + branch * n);
    int64_t accepted = draft_and_verify(branches, n, count, states, tokens, scores, steps, mask, drafts, drafted, workspace);
    for (int64_t made = 0; at + made < count && made < drafts;) {
        const int32_t *state = made ? drafted + (made - 1) * n : states + at * n;
        int64_t wrong = plain_step(n, state, tokens + at * n, scores + at * n, steps + 3 * (at + made), mask, next);
        if (wrong >= 0) {
            HOLDS(accepted == -1 - count - (at * n + wrong));
            return;
        }
        if (made == 0 && at + 1 < branches && !memcmp(next, states + (at + 1) * n, (size_t)n * 4)) at++;
        else if (accepted >= 0) HOLDS(!memcmp(next, drafted + made++ * n, (size_t)n * 4));
        else made++;
    }
    HOLDS(accepted == at);
}
