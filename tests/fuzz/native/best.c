/* best.c - top_k, expand_tree and unmask_select: the best few of any numbers, and where they stand. */
#include "kernels/distill/top_k.c"
#include "kernels/unmask/unmask_select.c"
#include "kernels/verify/expand_tree.c"

static void fuzz_top_k(struct input *in)
{
    int64_t rows = take_between(in, 0, 3), vocab = take_between(in, 1, 70), k = take_between(in, 1, vocab);
    float *logits = take_reals(in, rows * vocab), *values = room(rows * k, 4);
    int32_t *tokens = room(rows * k, 4);
    uint64_t *workspace = room(rows * k, 8);
    int wrong = 0;
    for (int64_t row = 0; row < rows; row++) {
        int some = 0;
        for (int64_t i = 0; i < vocab; i++) {
            wrong |= !(logits[row * vocab + i] < INFINITY);
            some |= logits[row * vocab + i] > -INFINITY;
        }
        wrong |= !some;
    }
    int status = top_k(rows, vocab, k, logits, tokens, values, workspace, 1);
    HOLDS(status == (wrong ? FD_NOT_FINITE : FD_OK));
    for (int64_t row = 0; row < rows && !wrong; row++)
        for (int64_t i = 0; i < k; i++) {
            int64_t at = row * k + i, better = 0;
            HOLDS(tokens[at] >= 0 && tokens[at] < vocab);
            float value = logits[row * vocab + tokens[at]];
            HOLDS(value == values[at]);
            for (int64_t j = 0; j < vocab; j++)
                better += logits[row * vocab + j] > value || (logits[row * vocab + j] == value && j < tokens[at]);
            HOLDS(better == i);
        }
}

static void fuzz_expand_tree(struct input *in)
{
    int64_t frontier = take_between(in, 0, 5), vocab = take_between(in, 1, 70), count = take_between(in, 1, 90), found = -1;
    count = fd_min(count, frontier * vocab);
    float *logits = take_reals(in, frontier * vocab), *scores = take_reals(in, frontier), *expanded = room(count, 4);
    int32_t *tokens = room(count, 4), *rows = room(count, 4);
    uint64_t *workspace = room(frontier * fd_min(count, vocab) + count, 8);
    int status = expand_tree(frontier, vocab, logits, scores, count, tokens, rows, expanded, &found, workspace, 1);
    HOLDS(status == FD_OK || status == FD_NOT_FINITE);
    if (status != FD_OK) return;
    HOLDS(found >= 0 && found <= count);
    for (int64_t i = 0; i < found; i++) {
        HOLDS(tokens[i] >= 0 && tokens[i] < vocab && rows[i] >= 0 && rows[i] < frontier);
        HOLDS(logits[rows[i] * vocab + tokens[i]] > -INFINITY && expanded[i] > -INFINITY && expanded[i] < INFINITY);
        if (i == 0) continue;
        HOLDS(expanded[i - 1] > expanded[i]
              || (expanded[i - 1] == expanded[i] && rows[i - 1] * vocab + tokens[i - 1] < rows[i] * vocab + tokens[i]));
    }
}

static void fuzz_unmask_select(struct input *in)
{
    int64_t rows = take_between(in, 0, 3), n = take_between(in, 0, 40), size = rows * n;
    struct fd_unmask_rule rule;
    rule.score = (int32_t)take_between(in, FD_CONFIDENCE, FD_ENTROPY);
    rule.threshold = take_flag(in) ? take_real(in) : -INFINITY;
    rule.budget = take_flag(in) ? fabs((double)take_real(in)) : -1.0;
    rule.least = take_between(in, 0, 5);
    rule.most = take_flag(in) ? INT32_MAX : take_between(in, fd_max(rule.least, 1), 40);
    rule.explore = take_between(in, 0, 4);
    int gives = take_byte(in);
    int8_t *masked = take_flags(in, size), *also = gives & 1 ? take_flags(in, size) : NULL, *chosen = room(size, 1);
    float *top = take_reals(in, size), *second = take_reals(in, size), *total = take_reals(in, size), *entropy = take_reals(in, size),
          *log_prob = take_reals(in, size), *given = gives & 2 ? take_reals(in, size) : NULL, *bias = gives & 4 ? take_reals(in, size) : NULL,
          *bounds = gives & 8 ? take_reals(in, n) : NULL, *confidence = room(size, 4);
    int32_t *quota = gives & 16 ? take_integers(in, rows) : NULL, *count = room(rows, 4), *ranks = room(size, 4);
    uint64_t *workspace = room(size, 8);
    if (rule.threshold != rule.threshold || rule.budget != rule.budget) return;          /* the wrapper refuses them */
    for (int64_t row = 0; quota && row < rows; row++)
        if (quota[row] < 0) return;
    unmask_select(rows, n, masked, top, second, total, entropy, log_prob, given, bias, also, quota, bounds, &rule, chosen, count, ranks,
                  confidence, workspace, 1);
    for (int64_t row = 0; row < rows; row++) {
        int64_t taken = 0, more = 0, eligible = 0, at = row * n;
        for (int64_t i = at; i < at + n; i++) {
            HOLDS(chosen[i] == 0 || chosen[i] == 1);
            HOLDS((ranks[i] >= 0) == (confidence[i] == confidence[i]) && (masked[i] || ranks[i] < 0) && (ranks[i] >= 0 || !chosen[i]));
            eligible += ranks[i] >= 0;
            taken += chosen[i];
            more += chosen[i] && also && also[i];
        }
        HOLDS(taken == count[row] && taken - more <= rule.most && (!quota || taken - more <= quota[row]));
        for (int64_t i = at; i < at + n; i++)
            for (int64_t j = at; j < at + n && ranks[i] >= 0; j++) {
                if (ranks[j] < 0 || i == j) continue;
                int first = confidence[i] > confidence[j] || (confidence[i] == confidence[j] && i < j);
                HOLDS(ranks[i] < eligible && first == (ranks[i] < ranks[j]));
            }
    }
}
