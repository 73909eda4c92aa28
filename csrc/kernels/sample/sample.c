/* sample.c - one token of each row: the argmax of its surviving logits plus Gumbel noise.
 *
 * Bans and bias, penalties, x = (z - max) / T, top-k, top-p, min-p, in this order (DESIGN, law 2); -inf is a ban.
 * Survivors of top-k and of top-p are the same thing: the shortest prefix in the order (-x, token) whose weight reaches a
 * target, the weight being 1 and p = e^x in units of 2^-40 (cut off: sums of integers have no order, so no sort is needed,
 * and a vocabulary below 2^23 cannot overflow).  The prefix is found by its last x, bit by bit, in three histograms, among
 * the few tokens that a lower bound leaves over: for top-k the k-th of the lanes' maxima, for top-p the x below which all
 * tokens together weigh less than what the prefix may leave out.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "gumbel_noise.c"

enum { SAMPLE_BUCKETS = 2048 };                        /* of a histogram: 11 bits of 31, then 10, then 10 */
struct sample_space {
    int64_t padded;                                    /* the vocabulary, rounded up to FD_CHUNK */
    uint64_t *histogram;                               /* (SAMPLE_BUCKETS,) */
    float *x;                                          /* (padded,) the row; -inf after its end */
    float *peaks;                                      /* (padded / 16,) of each chunk, the largest x of each lane */
    float *list_x, *list_p;                            /* (padded,) the tokens that are left, in order */
    int32_t *list_token;
};
static struct sample_space sample_space_in(char *base, int64_t vocab)            /* sample_workspace(vocab) bytes */
{
    struct sample_space s = {.padded = fd_pad(vocab, FD_CHUNK)};
    s.histogram = (uint64_t *)(void *)base;
    s.x = (float *)(void *)(s.histogram + SAMPLE_BUCKETS);
    s.list_x = s.x + s.padded;
    s.list_p = s.list_x + s.padded;
    s.list_token = (int32_t *)(void *)(s.list_p + s.padded);
    s.peaks = (float *)(void *)(s.list_token + s.padded);
    return s;
}
static int64_t sample_workspace(int64_t vocab)
{
    int64_t padded = fd_pad(vocab, FD_CHUNK), floats = 4 * padded + padded / 16;
    return SAMPLE_BUCKETS * (int64_t)sizeof(uint64_t) + floats * (int64_t)sizeof(float);
}

/* ---- the row, penalised and scaled ---- */
static int sample_load(const struct sample_space *s, int64_t vocab, const float *logits, const uint32_t *allowed)
{
    static const int32_t lane_bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    vf ban = vf_set1(-INFINITY);
    vi bits = vi_set1(INT32_MIN), lane_bit = vi_load(lane_bits);
    for (int64_t i = 0; i < vocab; i += 16) {
        vf z = vf_load_part(logits + i, vocab - i, -INFINITY);
        bits = vi_max(bits, vi_of_bits(z));            /* +inf and positive NaN are the largest positive integers */
        bits = vi_select(vf_equal(z, z), bits, vi_set1(0x7fffffff));
        if (allowed) {
            vi allow = vi_and(vi_set1((int32_t)(allowed[i / 32] >> i % 32)), lane_bit);
            z = vf_select(vi_equal(allow, vi_set1(0)), ban, z);
        }
        vf_store(s->x + i, z);
    }
    for (int64_t i = fd_pad(vocab, 16); i < s->padded; i += 16) vf_store(s->x + i, ban);
    int32_t largest[16];
    vi_store(largest, bits);
    for (int i = 0; i < 16; i++)
        if (largest[i] >= 0x7f800000) return 0;
    return 1;
}
/* Bias and penalties leave a finite logit finite: only a ban is -inf. */
static inline float sample_unbanned(float before, float after) { return after == -INFINITY && before > -INFINITY ? -FLT_MAX : after; }
/* Each token of seen (n,) once: the repetition penalty; then, where it stands behind the prompt, frequency and presence penalty. */
static void sample_penalise(const struct sample_space *s, const struct fd_sampler *set, const int32_t *seen, int64_t n)
{
    int32_t *times = s->list_token;                    /* by token: how often it stands behind the prompt; -1: penalised already */
    for (int64_t i = 0; i < n; i++) times[seen[i]] = 0;
    int counts = set->frequency_penalty != 0.0f || set->presence_penalty != 0.0f;
    for (int64_t i = counts ? set->prompt_length : n; i < n; i++) times[seen[i]]++;
    for (int64_t i = 0; i < n; i++) {
        float *x = s->x + seen[i];
        int32_t count = times[seen[i]];
        if (count < 0) continue;
        times[seen[i]] = -1;
        *x = *x < 0 ? sample_unbanned(*x, *x * set->repetition_penalty) : *x / set->repetition_penalty;
        if (count > 0) *x -= set->frequency_penalty * (float)count + set->presence_penalty;
    }
}
static float sample_top(const struct sample_space *s)
{
    vf top = vf_load(s->x);
    for (int64_t i = 16; i < s->padded; i += 16) top = vf_max(vf_load(s->x + i), top);
    return fd_max_lane(top);
}
static int32_t sample_first(const struct sample_space *s, float value)
{
    for (int64_t i = 0;; i += 16) {
        uint32_t equal = vm_bits(vf_equal(vf_load(s->x + i), vf_set1(value)));
        if (equal) return (int32_t)i + __builtin_ctz(equal);
    }
}
static void sample_scale(const struct sample_space *s, float top, float temperature)
{
    for (int64_t chunk = 0; chunk < s->padded; chunk += FD_CHUNK) {
        vf peak = vf_set1(-INFINITY);
        for (int64_t i = chunk; i < chunk + FD_CHUNK; i += 16) {
            vf x = vf_div(vf_sub(vf_load(s->x + i), vf_set1(top)), vf_set1(temperature));
            vf_store(s->x + i, x);
            peak = vf_max(x, peak);
        }
        vf_store(s->peaks + chunk / 16, peak);
    }
}

/* ---- the tokens that are left ---- */
static int64_t sample_collect(const struct sample_space *s, float least)         /* x >= least; their number */
{
    int64_t n = 0;
    for (int64_t chunk = 0; chunk < s->padded; chunk += FD_CHUNK) {
        if (vm_bits(vf_less(vf_load(s->peaks + chunk / 16), vf_set1(least))) == 0xffff) continue;
        for (int64_t i = chunk; i < chunk + FD_CHUNK; i += 16) {
            uint32_t left = ~vm_bits(vf_less(vf_load(s->x + i), vf_set1(least))) & 0xffff;
            for (; left; left &= left - 1) {
                int32_t token = (int32_t)i + __builtin_ctz(left);
                s->list_x[n] = s->x[token];
                s->list_token[n++] = token;
            }
        }
    }
    return n;
}
static inline uint32_t sample_key(float x)             /* x <= 0 (or -0): its magnitude's bits; the smallest key is the best token */
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits & 0x7fffffffu;
}
static inline uint64_t sample_weight(const float *p, int64_t i) { return p ? (uint64_t)(int64_t)(p[i] * 0x1p40f) : 1; }
/* The key at which the weight of n tokens, best first, reaches the target (all together do); and the weight before it. */
static uint32_t sample_crossing(const struct sample_space *s, int64_t n, const float *x, const float *p, uint64_t target,
                                uint64_t *before)
{
    static const int shifts[4] = {31, 20, 10, 0};
    uint32_t found = 0;
    *before = 0;
    for (int level = 1; level < 4; level++) {
        int shift = shifts[level], bits = shifts[level - 1] - shift;
        uint32_t bucket = 0;
        memset(s->histogram, 0, sizeof *s->histogram << bits);
        for (int64_t i = 0; i < n; i++) {
            uint32_t key = sample_key(x[i]);
            if (key >> shift >> bits != found) continue;
            s->histogram[key >> shift & ((1u << bits) - 1)] += sample_weight(p, i);
        }
        while (*before + s->histogram[bucket] < target) *before += s->histogram[bucket++];
        found = found << bits | bucket;
    }
    return found;
}
static int64_t sample_cut(const struct sample_space *s, int64_t n, const float *p, uint64_t target)
{
    uint64_t weight;
    uint32_t last = sample_crossing(s, n, s->list_x, p, target, &weight);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = sample_key(s->list_x[i]);
        if (key > last || (key == last && weight >= target)) continue;
        if (key == last) weight += sample_weight(p, i);                          /* ties: the lowest tokens */
        s->list_x[kept] = s->list_x[i];
        if (p) s->list_p[kept] = s->list_p[i];
        s->list_token[kept++] = s->list_token[i];
    }
    return kept;
}
static uint64_t sample_mass(const struct sample_space *s)                        /* of the whole row */
{
    uint64_t mass = 0;
    for (int64_t chunk = 0; chunk < s->padded; chunk += FD_CHUNK) {
        if (vm_bits(vf_less(vf_load(s->peaks + chunk / 16), vf_set1(-28.0f))) == 0xffff) continue;     /* e^-28 < 2^-40 */
        for (int64_t i = chunk; i < chunk + FD_CHUNK; i += 16) {
            float p[16];
            vf_store(p, vf_exp(vf_load(s->x + i)));
            for (int lane = 0; lane < 16; lane++) mass += sample_weight(p, lane);
        }
    }
    return mass;
}
static uint64_t sample_target(float top_p, uint64_t mass)                        /* within 1..mass */
{
    uint64_t target = (uint64_t)ceil((double)top_p * (double)mass);
    return target < 1 ? 1 : target > mass ? mass : target;
}

/* ---- the best of x + noise ---- */
struct sample_best { vf key; vi token; };
static inline struct sample_best sample_better(struct sample_best best, vf x, vf noise, vi token)
{
    vf key = vf_add(x, noise);
    vm better = vf_less(best.key, key);
    return (struct sample_best){vf_select(better, key, best.key), vi_select(better, token, best.token)};
}
static int32_t sample_fold(struct sample_best best)
{
    float keys[16];
    int32_t tokens[16];
    int at = 0;
    vf_store(keys, best.key);
    vi_store(tokens, best.token);
    for (int i = 1; i < 16; i++)
        if (keys[i] > keys[at] || (keys[i] == keys[at] && tokens[i] < tokens[at])) at = i;
    return tokens[at];
}
/* Over the whole row.  A block is left out where its bound shows that none of it reaches the best so far. */
static int32_t sample_row_best(const struct sample_space *s, int64_t vocab, const struct gumbel *g, const float *given)
{
    struct sample_best best = {vf_set1(-INFINITY), vi_set1(INT32_MAX)};
    float reached = -INFINITY;
    for (int64_t chunk = 0; chunk < s->padded; chunk += FD_CHUNK) {
        float peak = fd_max_lane(vf_load(s->peaks + chunk / 16));
        if (peak == -INFINITY || (!given && peak + gumbel_most < reached)) continue;
        for (int64_t at = chunk; at < chunk + FD_CHUNK && at < vocab; at += GUMBEL_BLOCK) {
            float noise[GUMBEL_BLOCK];
            if (given) {
                memset(noise, 0, sizeof noise);
                memcpy(noise, given + at, (size_t)fd_min(GUMBEL_BLOCK, vocab - at) * sizeof *noise);
            } else {
                vi words[4];
                gumbel_words(g, gumbel_quads(at), words);
                vf most = vf_add(vf_set1(peak), gumbel_bound(words));
                if (vm_bits(vf_less(most, vf_set1(reached))) == 0xffff) continue;
                gumbel_block(words, noise);
            }
            for (int64_t i = 0; i < GUMBEL_BLOCK; i += 16) {
                vi token = vi_add(vi_set1((int32_t)(at + i)), vi_iota());
                best = sample_better(best, vf_load(s->x + at + i), vf_load(noise + i), token);
            }
            reached = fd_max_lane(best.key);
        }
    }
    return sample_fold(best);
}
static int32_t sample_list_best(const struct sample_space *s, int64_t n, const struct gumbel *g, const float *given)
{
    struct sample_best best = {vf_set1(-INFINITY), vi_set1(INT32_MAX)};
    for (int64_t i = n; i < fd_pad(n, 16); i++) { s->list_x[i] = -INFINITY; s->list_token[i] = 0; }
    for (int64_t i = 0; i < n; i += 16) {
        vi token = vi_load(s->list_token + i), words[4];
        vf noise;
        if (given) {
            float lanes[16];
            for (int lane = 0; lane < 16; lane++) lanes[lane] = given[s->list_token[i + lane]];
            noise = vf_load(lanes);
        } else {
            gumbel_words(g, vi_shr(token, 2), words);
            vi word = vi_and(token, vi_set1(3)), r = words[0];
            FD_UNROLL for (int w = 1; w < 4; w++) r = vi_select(vi_equal(word, vi_set1(w)), words[w], r);
            noise = gumbel_of(r);
        }
        best = sample_better(best, vf_load(s->list_x + i), noise, token);
    }
    return sample_fold(best);
}

/* ---- one row ---- */
static int64_t sample_survivors(const struct sample_space *s, const struct fd_sampler *set, int64_t vocab)
{
    int by_rank = set->top_k > 0 && set->top_k < vocab, by_mass = set->top_p < 1.0f;
    int64_t peaks = s->padded / 16;
    uint64_t mass = 0, target = 0, before;
    float least = -INFINITY;
    if (by_rank && set->top_k <= peaks) {
        uint32_t bits = sample_crossing(s, peaks, s->peaks, NULL, (uint64_t)set->top_k, &before);
        memcpy(&least, &bits, 4);
        least = -least;
    } else if (!by_rank && by_mass) {
        mass = sample_mass(s);
        target = sample_target(set->top_p, mass);
        double each = (double)(mass - target) / (double)vocab;                   /* what each token may weigh, at least */
        if (each > 1.0) least = fd_log((float)(each * 0x1p-40)) - 0.01f;         /* 0.01 covers the roundings of log and exp */
    } else if (!by_rank && set->min_p > 0.0f) {
        least = fd_log(set->min_p) - 0.01f;
    }
    int64_t n = sample_collect(s, least > -INFINITY ? least : -0x1.fffffep127f);
    if (by_rank) n = sample_cut(s, n, NULL, (uint64_t)fd_min(set->top_k, n));
    for (int64_t i = n; i < fd_pad(n, 16); i++) s->list_x[i] = -INFINITY;
    for (int64_t i = 0; i < n; i += 16) vf_store(s->list_p + i, vf_exp(vf_load(s->list_x + i)));
    if (by_rank && by_mass) {
        for (int64_t i = 0; i < n; i++) mass += sample_weight(s->list_p, i);
        target = sample_target(set->top_p, mass);
    }
    if (by_mass) n = sample_cut(s, n, s->list_p, target);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (s->list_p[i] < set->min_p) continue;                                 /* the best has p = 1 */
        s->list_x[kept] = s->list_x[i];
        s->list_token[kept++] = s->list_token[i];
    }
    return kept;
}

/* ---- rows: what `sample` and `probabilities` are given alike ---- */
struct sampling {
    int64_t rows, vocab;
    const float *logits;
    const struct fd_sampler *sampler;
    const int32_t *seen;
    const int64_t *seen_offsets;
    const uint32_t *allowed;
    char *workspace;
    void (*run)(const struct sampling *in, const struct sample_space *s, int64_t row);
    _Atomic int64_t next;
};
static void sampling_rows(void *context, int64_t begin, int64_t end)             /* one item is one piece of the workspace */
{
    struct sampling *in = context;
    for (int64_t piece = begin; piece < end; piece++) {
        struct sample_space s = sample_space_in(in->workspace + piece * fd_sample_workspace(in->vocab), in->vocab);
        for (int64_t row; (row = atomic_fetch_add(&in->next, 1)) < in->rows;) in->run(in, &s, row);
    }
}
/* Bans, bias, penalties, and the scale where the temperature is not 0; top: the largest logit before it.  A status. */
static int sample_process(const struct sampling *in, const struct sample_space *s, int64_t row, float *top)
{
    const struct fd_sampler *set = in->sampler;
    const uint32_t *allowed = in->allowed ? in->allowed + row * fd_ceil(in->vocab, 32) : NULL;
    if (!sample_load(s, in->vocab, in->logits + row * in->vocab, allowed)) return FD_NOT_FINITE;
    for (int64_t i = 0; i < set->biases; i++) {
        float *x = s->x + set->bias_tokens[i], sum = *x + set->bias_values[i];
        *x = set->bias_values[i] > -INFINITY ? sample_unbanned(*x, sum) : sum;
    }
    if (in->seen && (set->repetition_penalty != 1.0f || set->frequency_penalty != 0.0f || set->presence_penalty != 0.0f)) {
        int64_t first = in->seen_offsets[row];
        sample_penalise(s, set, in->seen + first, in->seen_offsets[row + 1] - first);
    }
    *top = sample_top(s);
    if (*top == INFINITY) return FD_NOT_FINITE;                                  /* bias or repetition penalty overflowed */
    if (*top == -INFINITY) return FD_NOTHING_ALLOWED;
    if (set->temperature != 0.0f) sample_scale(s, *top, set->temperature);
    return FD_OK;
}
static int sample_keeps_all(const struct fd_sampler *set, int64_t vocab)
{
    return (set->top_k == 0 || set->top_k >= vocab) && set->top_p == 1.0f && set->min_p == 0.0f;
}

struct sample {
    struct sampling in;
    const int32_t *positions;
    const float *noise;
    int32_t *tokens;
};
static void sample_row(const struct sampling *in, const struct sample_space *s, int64_t row)
{
    const struct sample *job = (const struct sample *)in;
    const struct fd_sampler *set = in->sampler;
    int32_t *token = job->tokens + row;
    float top;
    int status = sample_process(in, s, row, &top);
    if (status != FD_OK) { *token = -status; return; }
    if (set->temperature == 0.0f) { *token = sample_first(s, top); return; }
    struct fd_chance chance = {.seed = set->seed, .sequence = set->sequence, .round = set->round};   /* purpose 0: the target's own */
    struct gumbel g = gumbel_start(&chance, job->positions[row]);
    const float *given = job->noise ? job->noise + row * in->vocab : NULL;
    *token = sample_keeps_all(set, in->vocab) ? sample_row_best(s, in->vocab, &g, given)
                                              : sample_list_best(s, sample_survivors(s, set, in->vocab), &g, given);
}
static int sample(int64_t rows, int64_t vocab, const float *logits, const int32_t *positions, const struct fd_sampler *sampler,
                  const int32_t *seen, const int64_t *seen_offsets, const uint32_t *allowed, const float *noise, int32_t *tokens,
                  void *workspace, int threads)
{
    struct sample job = {{rows, vocab, logits, sampler, seen, seen_offsets, allowed, workspace, sample_row, 0}, positions, noise, tokens};
    fd_parallel_for(threads, fd_min(threads, rows), 1, sampling_rows, &job);
    for (int64_t row = 0; row < rows; row++)
        if (tokens[row] < 0) return -tokens[row];
    return FD_OK;
}
