/* bits_main.c - law 1 across machines: prints, for each level that this CPU runs, hashes of the bits that the kernels give.
 *
 * Inputs come from integer arithmetic alone.  Lines of any two levels, compilers, architectures must be equal but for the name.
 * With an argument it prints the levels alone; on ARM also which of them are missed where one of the system's bits is not set.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#include "base.h"

static uint64_t random_state;
static uint32_t random_bits(void)                        /* a linear congruential generator, its upper half */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}
static void *random_bytes(size_t bytes)                  /* never freed: a short program */
{
    uint8_t *p = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)random_bits();
    return p;
}
static float *random_floats(int64_t n, float scale)      /* within -scale .. scale, some of them small, some zero */
{
    float *p = malloc((size_t)n * sizeof *p + 64);        /* qemu reads behind the end what a masked load leaves out */
    for (int64_t i = 0; i < n; i++) {
        float x = (float)((int32_t)random_bits() >> 7) * 0x1p-24f * scale;
        uint32_t kind = random_bits() % 16;
        p[i] = kind == 0 ? 0.0f : kind == 1 ? x * 0x1p-20f : x;
    }
    return p;
}
/* f16 of 1.x 2^-8 .. 1.x 2^-1, one in 8 subnormal. */
static uint16_t random_f16(void)
{
    uint32_t bits = random_bits();
    return (uint16_t)((bits & 0x8000u) | (bits >> 16 & 7u ? 7u + (bits >> 20 & 7u) : 0u) << 10 | (bits & 0x3ffu));
}
static uint16_t *random_f16s(int64_t n)
{
    uint16_t *p = malloc((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = random_f16();
    return p;
}

static uint32_t hash(uint32_t h, const void *data, size_t bytes)         /* FNV-1a */
{
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}
static const uint32_t hash_start = 0x811c9dc5u;

static uint32_t hash_exp_log(void)
{
    enum { N = 100003 };
    float *x = random_floats(N, 104.0f), *e = malloc(N * 4), *l = malloc(N * 4);
    uint32_t h = hash_start;
    fd_exp_log(32, N, x, e, l);
    h = hash(h, e, N * 4);
    for (int i = 0; i < N; i++) {                        /* any positive normal number */
        uint32_t bits = 0x00800000u + random_bits() % 0x7f000000u;
        memcpy(x + i, &bits, 4);
    }
    fd_exp_log(32, N, x, e, l);
    h = hash(h, l, N * 4);
    double *wide = malloc(N * 8), *wide_e = malloc(N * 8), *wide_l = malloc(N * 8);
    for (int i = 0; i < N; i++) wide[i] = (double)x[i];
    fd_exp_log(64, N, wide, wide_e, wide_l);
    return hash(hash(h, wide_e, N * 8), wide_l, N * 8);
}

static uint32_t hash_quantize(void)
{
    enum { ROWS = 7, WIDTH = 1000, BLOCKS = 32 };
    float *x = random_floats(ROWS * WIDTH, 9.0f);
    int8_t codes[ROWS * BLOCKS * 32];
    float scale[ROWS * BLOCKS], sum[ROWS * BLOCKS];
    int32_t total[ROWS * BLOCKS];
    fd_quantize_rows(ROWS, WIDTH, x, codes, scale, sum, total);
    uint32_t h = hash(hash_start, codes, sizeof codes);
    return hash(hash(hash(h, scale, sizeof scale), sum, sizeof sum), total, sizeof total);
}

static uint32_t hash_linear(int format)
{
    enum { ROWS = 13, OUTPUTS = 203, INPUTS = 333, BLOCKS = 11, PADDED = 224 };
    const int64_t cells = OUTPUTS * INPUTS, blocks = OUTPUTS * BLOCKS;
    float *x = random_floats(ROWS * INPUTS, 4.0f), *bias = calloc(PADDED, sizeof *bias), *y = malloc(ROWS * OUTPUTS * 4);
    uint16_t *scale = random_f16s(blocks), *minimum = random_f16s(blocks);
    void *data = format == FD_F32 ? (void *)random_floats(cells, 1.0f) : format == FD_F16 ? (void *)random_f16s(cells)
               : format == FD_BF16 ? malloc((size_t)cells * 2) : random_bytes((size_t)blocks * 32);
    if (format == FD_BF16)
        for (int64_t i = 0; i < cells; i++) ((uint16_t *)data)[i] = (uint16_t)(0x3c00u + (random_bits() & 0x83ffu));
    memcpy(bias, random_floats(OUTPUTS, 1.0f), OUTPUTS * sizeof *bias);
    void *packed = fd_malloc((size_t)(fd_packed_bytes(format, OUTPUTS, INPUTS) + 63) / 64 * 64);
    int layout = fd_isa_layout(fd_isa_selected());
    fd_pack(format, layout, OUTPUTS, INPUTS, data, scale, minimum, packed, 2);
    struct fd_weight weight = {format, layout, OUTPUTS, INPUTS, packed, bias};
    uint32_t h = hash_start;
    for (int64_t rows = 1; rows <= ROWS; rows++) {       /* every row tile of every level */
        fd_linear(&weight, rows, x, y, 1 + (int)rows % 3);
        h = hash(h, y, (size_t)(rows * OUTPUTS) * sizeof *y);
    }
    return h;
}

static uint32_t hash_row_statistics(void)
{
    enum { ROWS = 5, VOCAB = 3001 };
    float *z = random_floats(ROWS * VOCAB, 30.0f), top[ROWS], second[ROWS], log_sum_exp[ROWS], entropy[ROWS], log_prob[ROWS];
    int32_t argmax[ROWS];
    for (int i = 0; i < 1000; i++) z[ROWS * VOCAB - 1 - i] = -1.0f / 0.0f;           /* bans */
    fd_row_statistics(ROWS, VOCAB, z, argmax, top, second, log_sum_exp, entropy, log_prob, 3);
    uint32_t h = hash(hash(hash(hash_start, argmax, sizeof argmax), top, sizeof top), second, sizeof second);
    return hash(hash(hash(h, log_sum_exp, sizeof log_sum_exp), entropy, sizeof entropy), log_prob, sizeof log_prob);
}

static uint32_t hash_row_divergence(void)
{
    enum { ROWS = 2, VOCAB = 3001 };
    float *s = random_floats(ROWS * VOCAB, 9.0f), *t = random_floats(ROWS * VOCAB, 9.0f), *g = malloc(ROWS * VOCAB * 4);
    double *wide_s = malloc(ROWS * VOCAB * 8), *wide_t = malloc(ROWS * VOCAB * 8), *wide_g = malloc(ROWS * VOCAB * 8);
    double weights[ROWS] = {1.0, 0.5}, values[ROWS], label_values[ROWS];
    int32_t labels[ROWS] = {7, -1};
    for (int i = 0; i < ROWS * VOCAB; i++) wide_s[i] = (double)s[i], wide_t[i] = (double)t[i];
    uint32_t h = hash_start;
    for (int kind = 0; kind <= FD_PROBABILITY_MSE; kind++)
        for (int bits = 32; bits <= 64; bits += 32) {
            int numbers = bits == 64 ? FD_NUMBERS_F64 : FD_NUMBERS_F32;
            struct fd_divergence set = {kind, bits, numbers, numbers, 0, 0.25, 0.75, 0.5, 2.0, 1.0, 0.5};
            void *space = fd_malloc((size_t)fd_row_divergence_workspace(bits, VOCAB) * 2), *gradient = bits == 64 ? (void *)wide_g : g;
            fd_row_divergence(&set, ROWS, VOCAB, bits == 64 ? (void *)wide_s : s, bits == 64 ? (void *)wide_t : t, labels, weights, values,
                              label_values, gradient, space, 2);
            h = hash(hash(hash(h, values, sizeof values), label_values, sizeof label_values), gradient, (size_t)(ROWS * VOCAB * bits / 8));
        }
    return h;
}

static uint32_t hash_head_divergence(void)
{
    enum { ROWS = 29, VOCAB = 333, WIDTH = 37 };
    float *hidden = random_floats(ROWS * WIDTH, 2.0f), *head = random_floats(VOCAB * WIDTH, 2.0f), *teacher = random_floats(ROWS * VOCAB, 9.0f);
    float *by_hidden = malloc(ROWS * WIDTH * 4), *by_head = malloc(VOCAB * WIDTH * 4);
    double weights[ROWS], values[ROWS], label_values[ROWS];
    int32_t labels[ROWS];
    int64_t index[ROWS];
    for (int i = 0; i < ROWS; i++) weights[i] = 1.0 / (1 + i), labels[i] = i % 3 ? i : -1, index[i] = i;
    uint32_t h = hash_start;
    for (int kind = 0; kind <= FD_PROBABILITY_MSE; kind++) {
        if (kind == FD_ADAPTIVE_KL) continue;
        struct fd_head_divergence loss = {
            .set = {kind, 32, FD_NUMBERS_F32, FD_NUMBERS_F32, 0, 0.25, 0.75, 0.5, 2.0, 1.0, 0.5}, .rows = ROWS, .vocab = VOCAB, .width = WIDTH,
            .hidden = hidden, .head = head, .teacher = teacher, .index = index, .labels = labels, .weights = weights, .values = values,
            .label_values = label_values, .hidden_gradient = by_hidden, .head_gradient = by_head};
        memset(by_hidden, 0, ROWS * WIDTH * 4);
        fd_head_divergence(&loss, fd_malloc((size_t)fd_head_divergence_workspace(&loss) / 64 * 64 + 64), 2);
        h = hash(hash(hash(hash(h, values, sizeof values), label_values, sizeof label_values), by_hidden, ROWS * WIDTH * 4), by_head, VOCAB * WIDTH * 4);
    }
    return h;
}

static uint32_t hash_row_divergence_topk(void)           /* and of top_k, which finds the tokens */
{
    enum { ROWS = 2, VOCAB = 3001, K = 100 };
    float *s = random_floats(ROWS * VOCAB, 9.0f), *t = random_floats(ROWS * VOCAB, 9.0f), *g = malloc(ROWS * VOCAB * 4);
    double *wide_s = malloc(ROWS * VOCAB * 8), *wide_g = malloc(ROWS * VOCAB * 8), wide_logs[ROWS * K], wide_tail[ROWS] = {-1.0, -3.5};
    double weights[ROWS] = {1.0, 0.5}, values[ROWS], label_values[ROWS];
    float logs[ROWS * K], tail[ROWS] = {-1.0f, -3.5f};
    int32_t labels[ROWS] = {7, -1}, tokens[ROWS * K];
    uint64_t workspace[ROWS * K];
    for (int i = 0; i < ROWS * VOCAB; i++) wide_s[i] = (double)s[i];
    fd_top_k(ROWS, VOCAB, K, t, tokens, logs, workspace, 2);
    uint32_t h = hash(hash(hash_start, tokens, sizeof tokens), logs, sizeof logs);
    for (int i = 0; i < ROWS * K; i++) logs[i] -= 13.0f, wide_logs[i] = (double)logs[i];
    tokens[K + 3] = -1;
    for (int kind = 0; kind <= FD_PROBABILITY_MSE; kind++) {
        if (kind == FD_STUDENT_ENTROPY || kind == FD_LOGIT_MSE || kind == FD_PROBABILITY_MSE) continue;
        for (int bits = 32; bits <= 64; bits += 32)
            for (int bucket = 0; bucket < 2; bucket++) {
                int numbers = bits == 64 ? FD_NUMBERS_F64 : FD_NUMBERS_F32;
                struct fd_divergence set = {kind, bits, numbers, numbers, 0, 0.25, 0.75, 0.5, 2.0, 1.0, 0.5};
                void *space = fd_malloc((size_t)fd_row_divergence_topk_workspace(bits, VOCAB, K) * 2);
                void *gradient = bits == 64 ? (void *)wide_g : g, *left = bits == 64 ? (void *)wide_tail : tail;
                fd_row_divergence_topk(&set, ROWS, VOCAB, K, bits == 64 ? (void *)wide_s : s, tokens, bits == 64 ? (void *)wide_logs : logs,
                                       bucket ? left : NULL, labels, weights, values, label_values, gradient, space, 2);
                h = hash(hash(hash(h, values, sizeof values), label_values, sizeof label_values), gradient, (size_t)(ROWS * VOCAB * bits / 8));
            }
    }
    return h;
}

static uint32_t hash_residual_distribution(void)
{
    enum { VOCAB = 3001 };
    float *p = random_floats(VOCAB, 1.0f), *q = random_floats(VOCAB, 1.0f), r[VOCAB];
    double mass;
    for (int i = 0; i < VOCAB; i++) { p[i] = fabsf(p[i]); q[i] = fabsf(q[i]); }
    fd_residual_distribution(VOCAB, 0.7f, p, q, r, &mass);
    return hash(hash(hash_start, r, sizeof r), &mass, sizeof mass);
}

static uint32_t hash_probabilities(void)
{
    enum { ROWS = 5, VOCAB = 3001, SEEN = 4000 };        /* so many that tokens repeat */
    float *z = random_floats(ROWS * VOCAB, 30.0f), *p = malloc(ROWS * VOCAB * sizeof *p);
    void *workspace = malloc((size_t)fd_sample_workspace(VOCAB) * 3);
    struct fd_sampler sampler = {.temperature = 0.7f, .top_p = 1.0f, .repetition_penalty = 1.0f};
    int32_t *seen = random_bytes(ROWS * SEEN * sizeof *seen);
    int64_t offsets[ROWS + 1];
    for (int i = 0; i < ROWS * SEEN; i++) seen[i] = (int32_t)((uint32_t)seen[i] % VOCAB);
    for (int row = 0; row <= ROWS; row++) offsets[row] = row * SEEN;
    uint32_t h = hash_start;
    for (int cut = 0; cut < 5; cut++) {                  /* nothing; top-k; with top-p; with min-p; with penalties */
        if (cut == 1) sampler.top_k = 100;
        if (cut == 2) sampler.top_p = 0.9f;
        if (cut == 3) sampler.min_p = 0.02f;
        if (cut == 4) sampler.repetition_penalty = 1.3f, sampler.frequency_penalty = 0.7f, sampler.presence_penalty = -0.4f;
        sampler.prompt_length = SEEN / 4;
        fd_probabilities(ROWS, VOCAB, z, &sampler, seen, offsets, NULL, p, workspace, 3);
        h = hash(h, p, ROWS * VOCAB * sizeof *p);
    }
    return h;
}

static uint32_t hash_find_matches(void)
{
    enum { N = 5000, COUNT = 16 };
    int32_t *tokens = random_bytes(N * sizeof *tokens), starts[COUNT] = {0}, lengths[COUNT] = {0};
    for (int i = 0; i < N; i++) tokens[i] &= 1;
    fd_find_matches(N, tokens, 20, 1, COUNT, starts, lengths);
    return hash(hash(hash_start, starts, sizeof starts), lengths, sizeof lengths);
}

static uint32_t hash_ngram_pool(void)                    /* one that is full, and full of its keys */
{
    enum { ROWS = 10, N = 500, NGRAM = 4, CAPACITY = 100, PER_KEY = 8, VOCAB = 64 };
    int32_t *tokens = random_bytes(ROWS * N * sizeof *tokens), found[PER_KEY * (NGRAM - 1)];
    struct fd_ngram_pool pool = {NGRAM, CAPACITY, PER_KEY, 1, calloc(1, (size_t)fd_ngram_pool_bytes(NGRAM, CAPACITY))};
    uint32_t h = hash_start;
    for (int i = 0; i < ROWS * N; i++) tokens[i] = tokens[i] >> 16 & tokens[i] & (VOCAB - 1);     /* some often */
    fd_ngram_pool_insert(&pool, ROWS, N, tokens);
    for (int32_t key = 0; key < VOCAB; key++)
        h = hash(h, found, (size_t)fd_ngram_pool_lookup(&pool, &key, PER_KEY, found) * (NGRAM - 1) * sizeof *found);
    return h;
}

static uint32_t hash_trees(void)                         /* one tree: its levels, its layout, its best nodes */
{
    enum { FRONTIER = 5, VOCAB = 3001, COUNT = 100, BUDGET = 40 };
    float *z = random_floats(FRONTIER * VOCAB, 9.0f), *before = random_floats(FRONTIER, 5.0f), scores[COUNT];
    int32_t tokens[COUNT], rows[COUNT], parents[COUNT], depths[COUNT], leaves[COUNT], children[COUNT], offsets[COUNT + 1];
    uint64_t ancestors[COUNT * 2], workspace[(FRONTIER + 1) * COUNT];
    int64_t found;
    fd_expand_tree(FRONTIER, VOCAB, z, before, COUNT, tokens, rows, scores, &found, workspace, 3);
    uint32_t h = hash(hash(hash(hash_start, tokens, sizeof tokens), rows, sizeof rows), scores, sizeof scores);
    for (int i = 0; i < COUNT; i++) parents[i] = (int32_t)(random_bits() % (uint32_t)(i + 1)) - 1;
    int64_t kept = fd_build_tree(COUNT, parents, scores, BUDGET, tokens, rows, workspace);
    h = hash(hash(h, tokens, (size_t)kept * 4), rows, (size_t)kept * 4);
    for (int i = 1; i < COUNT; i++) parents[i] = parents[i] < 0 ? 0 : parents[i];
    int64_t ends = fd_tree_layout(COUNT, parents, depths, ancestors, leaves, children, offsets);
    h = hash(hash(hash(h, depths, sizeof depths), ancestors, sizeof ancestors), leaves, (size_t)ends * 4);
    return hash(hash(h, children, (COUNT - 1) * 4), offsets, sizeof offsets);
}

static uint32_t hash_lookahead_layout(void)
{
    enum { LEVELS = 6, COLUMNS = 40, GUESSES = 50, LENGTH = 7, ROWS = 1 + LEVELS * COLUMNS + GUESSES * LENGTH };
    int32_t window[LEVELS * COLUMNS], guesses[GUESSES * LENGTH], cells[LEVELS * COLUMNS], branches[GUESSES * LENGTH];
    int32_t tokens[ROWS], parents[ROWS], positions[ROWS], children[ROWS], siblings[ROWS];
    for (int i = 0; i < LEVELS * COLUMNS; i++) window[i] = (int32_t)(random_bits() % 3);
    for (int i = 0; i < GUESSES * LENGTH; i++) guesses[i] = (int32_t)(random_bits() % 3);
    size_t bytes = 4 * (size_t)fd_lookahead_layout(LEVELS, COLUMNS, GUESSES, LENGTH, window, guesses, 1, tokens, parents, positions, cells,
                                                   branches, children, siblings);
    uint32_t h = hash(hash(hash(hash_start, tokens, bytes), parents, bytes), positions, bytes);
    return hash(hash(h, cells, sizeof cells), branches, sizeof branches);
}

static uint32_t hash_verify_tree(void)
{
    enum { NODES = 40, VOCAB = 1001, REPEATS = 8 };
    float *target = random_floats(NODES * VOCAB, 1.0f), *drafts = random_floats(NODES * VOCAB, 1.0f);
    uint32_t h = hash_start;
    for (int row = 0; row < NODES; row++) {
        float *const both[] = {target + row * VOCAB, drafts + row * VOCAB};
        for (int which = 0; which < 2; which++) {
            double sum = 0;
            for (int i = 0; i < VOCAB; i++) sum += both[which][i] = fabsf(both[which][i]) + 0x1p-10f;
            for (int i = 0; i < VOCAB; i++) both[which][i] /= (float)sum;
        }
    }
    for (int repeat = 0; repeat < REPEATS; repeat++)
        for (int rule = FD_REJECTION; rule <= FD_TYPICAL; rule++) {
            int32_t parents[NODES], tokens[NODES], rows[NODES], path[NODES], emitted[NODES], accepted, bonus;
            double uniforms[NODES];
            int8_t verdicts[NODES];
            int64_t where[2], offsets[] = {0, NODES};
            for (int i = 0; i < NODES; i++) {
                parents[i] = i ? (int32_t)(random_bits() % (uint32_t)i) : -1;
                rows[i] = random_bits() % 4 ? parents[i] : -1;
                tokens[i] = (int32_t)(random_bits() % VOCAB);
                uniforms[i] = random_bits() * 0x1p-32;
            }
            struct fd_verifier set = {rule, 0, 1, 1.0f, 1.0f, 0.09, 0.3};
            fd_verify_tree(1, VOCAB, NODES, offsets, parents, tokens, NULL, target, drafts, rule == FD_TYPICAL ? NULL : rows, uniforms, &set,
                           path, emitted, &accepted, &bonus, verdicts, malloc((size_t)fd_verify_tree_workspace(rule, NODES, VOCAB)), where);
            h = hash(hash(hash(h, path, sizeof path), emitted, sizeof emitted), verdicts, sizeof verdicts);
        }
    return h;
}

static uint32_t hash_fixed_point_prefix(void)
{
    enum { ROWS = 200, N = 83 };
    int32_t *previous = random_bytes(ROWS * N * sizeof *previous), current[ROWS * N], prefix[ROWS];
    memcpy(current, previous, sizeof current);
    for (int row = 0; row < ROWS; row++) current[row * N + random_bits() % N] ^= (int32_t)(1u << random_bits() % 32);
    fd_fixed_point_prefix(ROWS, N, previous, current, prefix);
    return hash(hash_start, prefix, sizeof prefix);
}

static uint32_t hash_jacobi_step(void)
{
    enum { ROWS = 200, N = 83 };
    int32_t *iterate = random_bytes(ROWS * N * sizeof *iterate), drawn[ROWS * N], next[ROWS * N], prefix[ROWS], bonus[ROWS];
    int8_t stationary[ROWS * N], converged[ROWS];
    for (int i = 0; i < ROWS * N; i++) drawn[i] = iterate[(i + 1) % (ROWS * N)] ^ (random_bits() % 64 == 0);
    fd_jacobi_step(ROWS, N, iterate, drawn, next, prefix, stationary, bonus, converged);
    uint32_t h = hash(hash(hash(hash_start, next, sizeof next), prefix, sizeof prefix), stationary, sizeof stationary);
    return hash(hash(h, bonus, sizeof bonus), converged, sizeof converged);
}

static uint32_t hash_draft_and_verify(void)
{
    enum { BRANCHES = 4, N = 83, STEPS = 9, MASK = 1 << 30 };
    int32_t states[BRANCHES * N], tokens[BRANCHES * N], steps[STEPS * 3], drafts[STEPS * N];
    float *scores = random_floats(BRANCHES * N, 1.0f);
    uint64_t workspace[N];
    for (int i = 0; i < STEPS; i++) { steps[3 * i] = i * N / STEPS / 2; steps[3 * i + 1] = N; steps[3 * i + 2] = i % 4; }
    for (int i = 0; i < BRANCHES * N; i++) {
        states[i] = random_bits() % 2 ? MASK : (int32_t)(random_bits() % 50);
        tokens[i] = (int32_t)(random_bits() % 50);
    }
    /* Drafts of the first state are the guesses of its branch's copies: those of steps 1 and 2 right, step 3's wrong. */
    fd_draft_and_verify(1, N, STEPS, states, tokens, scores, steps, MASK, STEPS, drafts, workspace);
    for (int branch = 1; branch < BRANCHES; branch++) {
        memcpy(states + branch * N, drafts + (branch - 1) * N, N * sizeof *states);
        if (branch < 3) {
            memcpy(tokens + branch * N, tokens, N * sizeof *tokens);
            memcpy(scores + branch * N, scores, N * sizeof *scores);
        }
    }
    states[3 * N + 7] ^= 1;
    int64_t accepted = fd_draft_and_verify(BRANCHES, N, STEPS, states, tokens, scores, steps, MASK, 5, drafts, workspace);
    return hash(hash(hash_start, &accepted, sizeof accepted), drafts, 5 * N * sizeof *drafts);
}

static uint32_t hash_unmask_select(void)
{
    enum { ROWS = 40, N = 83 };
    int8_t *masked = random_bytes(ROWS * N), chosen[ROWS * N];
    float *top = random_floats(ROWS * N, 9.0f), *second = malloc(ROWS * N * 4), *total = malloc(ROWS * N * 4), *entropy = malloc(ROWS * N * 4);
    float *log_prob = malloc(ROWS * N * 4);
    float confidence[ROWS * N];
    int32_t count[ROWS], ranks[ROWS * N];
    uint64_t *workspace = malloc(ROWS * N * sizeof *workspace);
    uint32_t h = hash_start;
    for (int i = 0; i < ROWS * N; i++) {
        masked[i] &= 1;
        second[i] = top[i] - (float)(random_bits() % 5);
        total[i] = top[i] + (float)(random_bits() % 64) * 0x1p-5f;
        entropy[i] = (float)(random_bits() % 64) * 0x1p-4f;
        log_prob[i] = top[i] - total[i];
    }
    for (int score = FD_CONFIDENCE; score <= FD_ENTROPY; score++) {
        struct fd_unmask_rule rule = {score, score == FD_MARGIN ? 0.5f : -0.7f, 9.0, 2, 20, 3};
        fd_unmask_select(ROWS, N, masked, top, second, total, entropy, log_prob, NULL, NULL, NULL, NULL, NULL, &rule, chosen, count, ranks,
                         confidence, workspace, 1);
        for (int i = 0; i < ROWS * N; i++) confidence[i] = masked[i] ? confidence[i] : 0.0f;         /* a NaN's sign is the machine's */
        h = hash(hash(hash(h, chosen, sizeof chosen), count, sizeof count), ranks, sizeof ranks);
        h = hash(h, confidence, sizeof confidence);
    }
    return h;
}

/* Floats as they are, or as doubles of more digits. */
static void *random_reals(int bits, int64_t count, float scale)
{
    float *x = random_floats(count, scale);
    if (bits == 32) return x;
    double *wide = malloc((size_t)count * sizeof *wide);
    for (int64_t k = 0; k < count; k++) wide[k] = (double)x[k] * (1 + 0x1p-40 * (double)k);
    return wide;
}
static uint32_t hash_transport(void)                     /* softmax, distances, their gradients, a plan: of floats and of doubles */
{
    enum { N = 21, M = 37, BATCH = 2, ITERATIONS = 4 };
    static const int64_t coordinates[] = {3, 19, 64, 530};
    uint32_t h = hash_start;
    for (int which = 0; which < 4; which++)
        for (int bits = 32; bits <= 64; bits += 32) {
            int64_t d = coordinates[which], size = bits / 8, nd = BATCH * N * d, md = BATCH * M * d, nm = BATCH * N * M;
            int64_t counts[] = {nd, md, nm};
            void *in[3], *p = malloc((size_t)(nd * 8)), *g = malloc((size_t)(nd * 8)), *distances = malloc((size_t)(nm * 8));
            double lengths[BATCH * N];
            for (int i = 0; i < 3; i++) in[i] = random_reals(bits, counts[i], 3.0f);
            fd_softmax(bits, BATCH * N, d, 1.5, in[0], p, 2);
            h = hash(h, p, (size_t)(nd * size));
            fd_unit_rows(bits, BATCH * N, d, in[0], g, lengths, 2);
            h = hash(hash(h, g, (size_t)(nd * size)), lengths, sizeof lengths);
            for (int metric = FD_SQEUCLIDEAN; metric <= FD_COSINE; metric++) {
                fd_pairwise_distance(bits, metric, BATCH, N, M, d, in[0], in[1], distances,
                                     malloc((size_t)fd_pairwise_distance_workspace(bits, BATCH, N, M, d)), 2);
                h = hash(h, distances, (size_t)(nm * size));
                for (int i = 0; i < BATCH * N; i++) lengths[i] = 1.25 + i;
                fd_distance_gradient(bits, metric, BATCH, N, M, d, in[2], in[0], in[1], lengths, g,
                                     malloc((size_t)fd_distance_gradient_workspace(bits, BATCH, M, d)), 2);
                h = hash(h, g, (size_t)(nd * size));
            }
            fd_softmax_gradient(bits, BATCH * N, d, 0.7, p, g, 2);
            h = hash(h, g, (size_t)(nd * size));
            if (bits == 32) continue;
            double value[BATCH], *plan = malloc((size_t)(nm * 8)), *gradient = malloc((size_t)(nm * 8));
            double *workspace = malloc((size_t)(fd_unrolled_sinkhorn_workspace(BATCH, N, M, ITERATIONS) * 8));
            struct fd_unrolled problem = {BATCH, N, M, ITERATIONS, 0.3, in[2], value, plan, gradient, workspace};
            fd_unrolled_sinkhorn(&problem, 0, fd_unrolled_sinkhorn_steps(ITERATIONS), 2);
            h = hash(hash(hash(h, value, sizeof value), plan, (size_t)(nm * 8)), gradient, (size_t)(nm * 8));
        }
    return h;
}

static uint32_t hash_sinkhorn(void)                      /* costs and points, balanced and not, wide epsilons and narrow ones */
{
    enum { N = 70, M = 37, PADDED = 48, D = 3, ITERATIONS = 12 };
    static const double epsilons[] = {2.0, 0.01}, taus[] = {INFINITY, 1.5};
    uint32_t h = hash_start;
    for (int which = 0; which < 2 * 5 * 2 * 2; which++) {
        int bits = which % 2 ? 32 : 64, metric = which / 2 % 5, size = bits / 8;
        double epsilon = epsilons[which / 10 % 2], tau = taus[which / 20];
        double a[N], b[M], phi[N] = {0}, gamma[M] = {0}, results[5], constants[] = {epsilon, 1e-9, 0.25, tau < INFINITY ? 0.8 : 1.0};
        int64_t sizes[] = {N, M}, most = ITERATIONS, iterations;
        int32_t status = FD_NOT_BEGUN;
        for (int i = 0; i < N; i++) a[i] = i == 5 ? 0.0 : 1.0 / 64;      /* exact in floats */
        for (int j = 0; j < M; j++) b[j] = j < 5 ? 0.0 : 1.0 / 32;
        struct fd_transport t = {
            .bits = bits, .metric = metric, .n = N, .m = M, .d = D, .cost = random_reals(bits, N * M, 2.0f),
            .x = random_reals(bits, N * D, 1.0f), .y = random_reals(bits, PADDED * D, 1.0f), .sizes = sizes, .a = a, .b = b,
            .tau = {tau, tau}, .constants = constants, .max_iterations = &most, .most_iterations = most, .phi = phi, .gamma = gamma,
            .results = results, .iterations = &iterations, .status = &status};
        void *workspace = fd_malloc((size_t)fd_sinkhorn_workspace(&t, 1, 2)), *out = malloc((size_t)(N * M * size));
        while (fd_sinkhorn(&t, 0, 1, workspace, 1000000, 2)) {}
        h = hash(hash(hash(h, phi, sizeof phi), gamma, sizeof gamma), results, sizeof results);
        for (int kind = FD_PLAN; kind <= FD_GRADIENT; kind++) {
            if (kind == FD_GRADIENT && metric == FD_GIVEN) continue;
            int64_t width = kind == FD_PLAN ? M : D;
            void *space = fd_malloc((size_t)fd_transport_rows_workspace(&t, 2) / 64 * 64 + 64);
            fd_transport_rows(&t, 0, 0, N, kind, 1.25, width, t.y, out, space, 2);
            h = hash(h, out, (size_t)(N * width * size));
        }
    }
    return h;
}

static uint32_t hash_optimisers(void)                    /* two steps each, over more than a task */
{
    enum { N = 16384 + 1003 };
    const struct fd_adamw adamw = {0.75f, 0.1f, 0.001f, 0.003f, 20.0f, 1e-8f, 1e-5f, 0};
    const struct fd_sgd sgd = {0.75f, 0.9f, 0.003f, 0.01f, 1e-5f, 1, 1};
    float *value = random_floats(N, 1.0f), *gradient = random_floats(N, 1e-3f), *first = random_floats(N, 1e-3f), *second = random_floats(N, 1e-3f);
    uint32_t h = hash_start;
    for (int i = 0; i < N; i++) second[i] *= second[i];
    for (int step = 0; step < 2; step++) {
        fd_adamw_step(N, &adamw, value, gradient, first, second, 1 + step);
        h = hash(hash(hash(h, value, N * 4), first, N * 4), second, N * 4);
    }
    double sum = fd_sum_of_squares(N, first, 2);
    for (int step = 0; step < 2; step++) {
        fd_sgd_step(N, &sgd, value, gradient, first, 1 + step);
        h = hash(hash(h, value, N * 4), first, N * 4);
    }
    return hash(hash(h, &sum, sizeof sum), gradient, N * 4);
}

static void print_levels(void)
{
    for (int level = 0; level < fd_isa_count(); level++)
        if (fd_isa_supported(level)) printf(" %s", fd_isa_name(level));
    printf("\n");
}

#if defined(__aarch64__)
/* What the system says of the CPU (linked with --wrap=getauxval), as far as a bit is in `kept`: AT_HWCAP, AT_HWCAP2. */
static uint64_t kept[2] = {UINT64_MAX, UINT64_MAX};
unsigned long __real_getauxval(unsigned long type);
unsigned long __wrap_getauxval(unsigned long type);
unsigned long __wrap_getauxval(unsigned long type)
{
    return __real_getauxval(type) & (type == AT_HWCAP ? kept[0] : type == AT_HWCAP2 ? kept[1] : UINT64_MAX);
}
static unsigned supported(void)                          /* a bit a level */
{
    unsigned levels = 0;
    for (int level = 0; level < fd_isa_count(); level++) levels |= (unsigned)fd_isa_supported(level) << level;
    return levels;
}
static void print_needs(void)
{
    const unsigned all = supported();
    uint64_t needed[2] = {0, 0};
    for (int word = 0; word < 2; word++)
        for (int bit = 0; bit < 64; bit++) {
            kept[word] = ~(UINT64_C(1) << bit);
            if (supported() != all) {
                needed[word] |= ~kept[word];
                printf("without bit %d of AT_HWCAP%s:", bit, word ? "2" : "");
                print_levels();
            }
            kept[word] = UINT64_MAX;
        }
    memcpy(kept, needed, sizeof kept);
    printf("with these alone:");
    print_levels();
    memset(kept, 0, sizeof kept);
    printf("with none:");
    print_levels();
}
#else
static void print_needs(void) {}
#endif

int main(int arguments, char **argument)
{
    (void)argument;
    if (arguments > 1) {
        printf("levels:");
        print_levels();
        print_needs();
        return 0;
    }
    static const char *const formats[] = {"f32", "f16", "bf16", "q8", "q4"};
    for (int level = 0; level < fd_isa_count(); level++) {
        if (!fd_isa_supported(level)) continue;
        fd_isa_select(level);
        random_state = 1;
        printf("%-8s exp_log %08x", fd_isa_name(level), hash_exp_log());
        printf(" quantize_rows %08x", hash_quantize());
        printf(" linear");
        for (int format = FD_F32; format <= FD_Q4; format++) printf(" %s %08x", formats[format], hash_linear(format));
        printf(" row_statistics %08x", hash_row_statistics());
        printf(" residual_distribution %08x", hash_residual_distribution());
        printf(" probabilities %08x", hash_probabilities());
        printf(" find_matches %08x", hash_find_matches());
        printf(" ngram_pool %08x", hash_ngram_pool());
        printf(" trees %08x", hash_trees());
        printf(" verify_tree %08x", hash_verify_tree());
        printf(" fixed_point_prefix %08x", hash_fixed_point_prefix());
        printf(" jacobi_step %08x", hash_jacobi_step());
        printf(" draft_and_verify %08x", hash_draft_and_verify());
        printf(" lookahead_layout %08x", hash_lookahead_layout());
        printf(" unmask_select %08x", hash_unmask_select());
        printf(" transport %08x", hash_transport());
        printf(" sinkhorn %08x", hash_sinkhorn());
        printf(" row_divergence %08x", hash_row_divergence());
        printf(" row_divergence_topk %08x", hash_row_divergence_topk());
        printf(" head_divergence %08x", hash_head_divergence());
        printf(" optimisers %08x", hash_optimisers());
        printf("\n");
    }
    return 0;
}
