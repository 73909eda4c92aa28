/* verify_tree.c - drafted trees under every rule, of laws that are some and laws that are none. */
#include "kernels/verify/verify_tree.c"

static void take_laws(struct input *in, float *laws, int64_t rows, int64_t vocab)        /* honest ones sum to 1 */
{
    int honest = take_flag(in);
    for (int64_t row = 0; row < rows; row++) {
        double sum = 0;
        for (int64_t i = 0; i < vocab; i++) {
            int odd = honest ? (int)take_between(in, 0, 255) : 0;
            laws[row * vocab + i] = honest ? (odd > 250 ? 1e-38f : odd < 120 ? 0.0f : (float)odd) : take_real(in);
            sum += (double)laws[row * vocab + i];
        }
        for (int64_t i = 0; i < vocab && honest && sum > 0; i++) laws[row * vocab + i] = (float)((double)laws[row * vocab + i] / sum);
    }
}

static void fuzz_verify_tree(struct input *in)
{
    int64_t trees = take_between(in, 1, 4), vocab = take_between(in, 1, 40), rows = take_between(in, 0, 5), most = 0, where[2] = {-2, -2};
    struct fd_verifier set = {.scale = 1, .exponent = 1};
    set.rule = (int32_t)take_between(in, FD_COUPLED, FD_TYPICAL);
    set.chain = set.rule == FD_TRAVERSAL || set.rule == FD_REJECTION ? take_flag(in) : 0;
    set.replacement = take_flag(in);
    set.epsilon = fabs((double)take_real(in));
    set.delta = fabs((double)take_real(in));
    if (set.epsilon != set.epsilon || set.delta != set.delta) return;                    /* the wrapper refuses them */
    if (set.rule == FD_REJECTION && set.chain) {       /* lenience */
        float e = (float)take_between(in, 1, 1000) / 1000.0f;
        int how = take_byte(in) % 3;
        if (how == 1) set.scale = 1 / e;
        if (how == 2) set.exponent = e;
    }
    int64_t *offsets = filled(trees + 1, 8);
    offsets[0] = 0;
    for (int64_t t = 0; t < trees; t++) {
        int64_t n = take_between(in, 1, 12);
        offsets[t + 1] = offsets[t] + n;
        most = fd_max(most, n);
    }
    int64_t nodes = offsets[trees];
    int32_t *parents = filled(nodes, 4), *tokens = filled(nodes, 4);
    int honest = take_flag(in);
    for (int64_t t = 0; t < trees; t++)
        for (int64_t i = 0; i < offsets[t + 1] - offsets[t]; i++) {
            int64_t at = offsets[t] + i;
            parents[at] = !honest ? take_integer(in) : (int32_t)(i == 0 ? -1 : set.chain ? i - 1 : take_between(in, 0, i - 1));
            tokens[at] = honest ? (int32_t)take_between(in, 0, vocab - 1) : take_integer(in);
        }
    int32_t *drawn = NULL, *draft_rows = NULL;
    float *target = NULL, *drafts = NULL;
    double *uniforms = NULL;
    void *workspace = NULL;
    if (set.rule == FD_COUPLED) {
        drawn = take_integers(in, nodes);
        rows = 0;
    } else {
        target = filled(nodes * vocab, 4);
        take_laws(in, target, nodes, vocab);
        uniforms = filled(nodes, 8);
        for (int64_t i = 0; i < nodes; i++) {
            int uniform = take_byte(in);
            uniforms[i] = uniform == 255 ? (double)take_real(in) : uniform / 255.0;
        }
        if (set.rule != FD_TYPICAL && take_flag(in)) {
            draft_rows = filled(nodes, 4);
            for (int64_t i = 0; i < nodes; i++) draft_rows[i] = (int32_t)(honest ? take_between(in, -1, rows - 1) : take_integer(in));
            drafts = rows ? filled(rows * vocab, 4) : NULL;
            if (rows) take_laws(in, drafts, rows, vocab);
        } else {
            rows = 0;
        }
        workspace = room(verify_tree_workspace(set.rule, most, vocab), 1);
    }
    int32_t *path = room(nodes, 4), *emitted = room(nodes, 4), *accepted = room(trees, 4), *bonus = room(trees, 4);
    int8_t *verdicts = room(nodes, 1);
    int status = verify_tree(trees, vocab, rows, offsets, parents, tokens, drawn, target, drafts, draft_rows, uniforms, &set, path, emitted,
                             accepted, bonus, verdicts, workspace, where);
    if (status != FD_OK) {
        HOLDS(status >= FD_NO_TREE && status <= FD_NO_UNIT && where[0] >= 0 && where[0] < nodes && where[1] >= -1 && where[1] < fd_max(rows, 1));
        return;
    }
    for (int64_t t = 0; t < trees; t++) {
        int64_t first = offsets[t], n = offsets[t + 1] - first, ones = 0;
        HOLDS(accepted[t] >= 0 && accepted[t] < n && path[first] == 0);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = first + i;
            HOLDS(verdicts[at] >= -1 && verdicts[at] <= 1);
            ones += verdicts[at] == 1;
            if (i > accepted[t]) {
                HOLDS(path[at] == -1 && emitted[at] == -1);
                continue;
            }
            HOLDS(path[at] >= 0 && path[at] < n && verdicts[first + path[at]] == 1);
            HOLDS(i == 0 || (parents[first + path[at]] == path[at - 1] && emitted[at - 1] == tokens[first + path[at]]));
        }
        HOLDS(ones == accepted[t] + 1 && emitted[first + accepted[t]] == bonus[t]);
        if (set.rule == FD_COUPLED) continue;
        HOLDS(bonus[t] >= 0 && bonus[t] < vocab && target[(first + path[first + accepted[t]]) * vocab + bonus[t]] > 0.0f);
    }
}
