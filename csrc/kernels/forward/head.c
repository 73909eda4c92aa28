/* head.c - the output head: logits chunk by chunk, statistics of each chunk at once, so that logits need not be kept.
 *
 * One task is one chunk of the vocabulary for all rows that are read; the weights of a chunk are read once.  Banned tokens lose their
 * logits before anything looks at them.
 *
 * A row whose sampler has a temperature T alone is drawn here, the token of sample.c: the first largest key
 * fl(fl(fl(z - top) / T) + g).  The row's top is only known at the end.  So a chunk leaves `most`, the largest of such keys under
 * its own top (or a bound on it), and the merge multiplies again, alone, the chunks that may hold the largest key: nearly always
 * one.  With d = fl(fl(chunk top - top) / T) a winner's key is below most + d + 2^-15:
 *     The token of the top has a key of at least -3.2, and g <= 22.9: of a winner (z - top) / T >= -26.1.  (z - chunk top) / T and
 *     d lie between that and 0.  Each of the three rounds twice, both keys once more, below 23, and so do the two additions
 *     here, below 27: (3 * 2 * 26.1 + 2 * 23 + 2 * 27) 2^-24 < 2^-15.
 * Threads tell each other the best key so far, so that later chunks need not make noise that does not reach it.  What a thread has
 * heard of changes how near a bound `most` is, and so which chunks are multiplied again, but no token.
 */
#pragma once
#include <stdatomic.h>
#include "../sample/gumbel_noise.c"
#include "../sample/sample.c"
#include "../tile.h"
#include "linear.c"
#include "row_statistics.c"

enum { FD_HEAD_ROWS = 32 };              /* rows whose chunk of logits one thread holds at a time */
_Static_assert(FD_HEAD_ROWS % FD_MANY_ROWS == 0, "they begin at the first row of a tile");
enum { FD_PARTIAL = 8 };                 /* floats of one chunk's statistics */
static const float head_margin = 0x1p-15f;
struct head_chunk { struct statistics statistics; float most; };
_Static_assert(sizeof(struct head_chunk) <= FD_PARTIAL * sizeof(float), "a chunk's statistics have room");

static int64_t head_chunks(const struct fd_op *op) { return fd_ceil(op->weights[0]->outputs, FD_CHUNK); }
static int64_t op_head_tasks(const struct fd_op *op, const struct fd_pass *pass) { return pass->reads ? head_chunks(op) : 0; }

static struct fd_draw *head_draw_of(const struct fd_pass *pass, int64_t row, struct gumbel *g)           /* or NULL */
{
    struct fd_draw *draw = pass->draws ? pass->draws + row : NULL;
    if (!draw || draw->temperature == 0.0f) return NULL;
    struct fd_chance chance = {.seed = draw->seed, .sequence = draw->sequence, .round = draw->round};    /* as in sample.c */
    *g = gumbel_start(&chance, pass->positions[pass->read_rows[row]]);
    return draw;
}

/* The best of n <= FD_CHUNK logits from `token` on, but of no block that does not reach `reached`.  No key is above the result. */
static float head_keys(const float *z, int64_t n, int64_t token, float top, float temperature, const struct gumbel *g, float reached,
                       struct sample_best *best)
{
    vf most = vf_set1(-INFINITY);
    *best = (struct sample_best){most, vi_set1(INT32_MAX)};
    for (int64_t at = 0; at < n; at += GUMBEL_BLOCK) {
        vf x[GUMBEL_BLOCK / 16], peak = vf_set1(-INFINITY);
        vi words[4];
        float noise[GUMBEL_BLOCK];
        for (int i = 0; i < GUMBEL_BLOCK / 16; i++) {
            vf logits = vf_load_part(z + at + 16 * i, n - at - 16 * i, -INFINITY);
            x[i] = vf_div(vf_sub(logits, vf_set1(top)), vf_set1(temperature));
            peak = vf_max(x[i], peak);
        }
        float highest = fd_max_lane(peak);
        vf bound = vf_set1(highest + gumbel_most);
        if (highest + gumbel_most >= reached) {
            gumbel_words(g, gumbel_quads(token + at), words);
            bound = vf_add(vf_set1(highest), gumbel_bound(words));
        }
        if (vm_bits(vf_less(bound, vf_set1(reached))) == 0xffff) { most = vf_max(bound, most); continue; }
        gumbel_block(words, noise);
        for (int i = 0; i < GUMBEL_BLOCK / 16; i++) {
            vi tokens = vi_add(vi_set1((int32_t)(token + at + 16 * i)), vi_iota());
            *best = sample_better(*best, x[i], vf_load(noise + 16 * i), tokens);
        }
        float largest = fd_max_lane(best->key);
        reached = largest > reached ? largest : reached;
    }
    return fd_max_lane(vf_max(best->key, most));
}

/* `most` of a chunk, with what other chunks have reached: a key, and the top that it is relative to. */
static float head_most(const float *z, int64_t n, int64_t token, float top, struct fd_draw *draw, const struct gumbel *g)
{
    _Atomic uint64_t *shared = (_Atomic uint64_t *)&draw->reached;
    uint64_t bits = atomic_load_explicit(shared, memory_order_relaxed);
    struct { float top, key; } best;
    struct sample_best own;
    memcpy(&best, &bits, sizeof best);
    float reached = bits ? best.key + (best.top - top) / draw->temperature : -INFINITY;
    float most = head_keys(z, n, token, top, draw->temperature, g, reached, &own);
    best.key = fd_max_lane(own.key);
    best.top = top;
    memcpy(&bits, &best, sizeof best);
    if (best.key > reached) atomic_store_explicit(shared, bits, memory_order_relaxed);
    return most;
}

/* Of the row's n logits from `token` on, those of banned tokens: as if the weights had said -inf. */
static void head_ban(const struct fd_pass *pass, int64_t row, float *z, int64_t token, int64_t n)
{
    if (!pass->bans) return;
    const int32_t *at = pass->banned + pass->bans[2 * row], *end = pass->banned + pass->bans[2 * row + 1];
    for (const int32_t *last = end; at < last;) {
        const int32_t *middle = at + (last - at) / 2;
        if (*middle < token) at = middle + 1; else last = middle;
    }
    for (; at < end && *at < token + n; at++) z[*at - token] = -INFINITY;
}

/* Logits of n <= FD_CHUNK tokens from `token` on, of rows [begin, end), one row's FD_CHUNK after the other's. */
static void head_logits(const struct fd_op *op, int64_t begin, int64_t end, int64_t token, int64_t n, float *z)
{
    struct linear_job job = {op->weights[0], NULL, linear_rows_of(op), 0, NULL, z, FD_CHUNK, FD_CHUNK};
    linear_tiles(&job, begin, end, token / FD_LANES, token / FD_LANES + fd_ceil(n, FD_LANES));
    if (op->softcap > 0.0f)
        for (int64_t at = 0; at < (end - begin) * FD_CHUNK; at += 16)
            if (at % FD_CHUNK < n) vf_store(z + at, soft_capped(vf_load(z + at), op->softcap));
}

static int op_head(const struct fd_op *op, const struct fd_pass *pass, int64_t chunk)
{
    int64_t vocab = op->weights[0]->outputs, token = chunk * FD_CHUNK, n = fd_min(FD_CHUNK, vocab - token), chunks = head_chunks(op);
    _Alignas(64) float z[FD_HEAD_ROWS * FD_CHUNK];
    for (int64_t row = 0; row < pass->reads; row += FD_HEAD_ROWS) {
        int64_t rows = fd_min(FD_HEAD_ROWS, pass->reads - row);
        head_logits(op, row, row + rows, token, n, z);
        for (int64_t r = 0; r < rows; r++) {
            float *logits = z + r * FD_CHUNK;
            head_ban(pass, row + r, logits, token, n);
            struct head_chunk c = {statistics_of_chunk(logits, n, token), -INFINITY};
            struct gumbel g;
            struct fd_draw *draw = head_draw_of(pass, row + r, &g);
            if (draw && !c.statistics.bad && c.statistics.top > -INFINITY)
                c.most = head_most(logits, n, token, c.statistics.top, draw, &g);
            memcpy(pass->partial_statistics + ((row + r) * chunks + chunk) * FD_PARTIAL, &c, sizeof c);
            if (pass->logits) memcpy(pass->logits + (row + r) * vocab + token, logits, (size_t)n * sizeof *logits);
            if (pass->wanted_tokens) {
                int64_t at = pass->wanted_tokens[row + r] - token;
                if (at >= 0 && at < n) pass->wanted_log_prob[row + r] = logits[at];
            }
        }
    }
    return 1;
}

static struct head_chunk head_chunk_of(const struct fd_pass *pass, int64_t row, int64_t chunk, int64_t chunks)
{
    struct head_chunk c;
    memcpy(&c, pass->partial_statistics + (row * chunks + chunk) * FD_PARTIAL, sizeof c);
    return c;
}
/* A winner's key in this chunk is not above it. */
static float head_bound(struct head_chunk c, float top, float temperature)
{
    return c.most + (c.statistics.top - top) / temperature + head_margin;
}
static int32_t head_draw(const struct fd_op *op, const struct fd_pass *pass, int64_t row, float temperature, const struct gumbel *g)
{
    _Alignas(64) float z[FD_CHUNK];
    int64_t chunks = head_chunks(op), likely = 0;
    float top = pass->top[row], reached = -INFINITY;
    int32_t drawn = pass->argmax[row];
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        float bound = head_bound(head_chunk_of(pass, row, chunk, chunks), top, temperature);
        if (bound > reached) { reached = bound; likely = chunk; }
    }
    reached = -INFINITY;
    for (int64_t i = -1; i < chunks; i++) {              /* the likely one first: then the others seldom reach it */
        int64_t chunk = i < 0 ? likely : i, token = chunk * FD_CHUNK;
        if (i == likely || head_bound(head_chunk_of(pass, row, chunk, chunks), top, temperature) < reached) continue;
        int64_t n = fd_min(FD_CHUNK, op->weights[0]->outputs - token);
        struct sample_best best;
        head_logits(op, row, row + 1, token, n, z);
        head_ban(pass, row, z, token, n);
        head_keys(z, n, token, top, temperature, g, reached, &best);
        float key = fd_max_lane(best.key);
        int32_t first = sample_fold(best);
        if (key > reached || (key == reached && first < drawn)) { reached = key; drawn = first; }
    }
    return drawn;
}

static int op_head_merge(const struct fd_op *op, const struct fd_pass *pass, int64_t row)
{
    int64_t chunks = head_chunks(op);
    struct statistics all = statistics_empty();
    for (int64_t chunk = 0; chunk < chunks; chunk++)
        all = statistics_merge(all, head_chunk_of(pass, row, chunk, chunks).statistics);
    int finite = statistics_result(all, pass->argmax + row, pass->top + row, pass->second + row, pass->log_sum_exp + row,
                                   pass->entropy + row, pass->log_prob + row);
    if (pass->wanted_tokens) pass->wanted_log_prob[row] -= pass->log_sum_exp[row];
    struct gumbel g;
    const struct fd_draw *draw = head_draw_of(pass, row, &g);
    if (draw && finite) pass->drawn[row] = head_draw(op, pass, row, draw->temperature, &g);
    return finite;
}
static int64_t statistics_floats(int64_t vocab) { return fd_ceil(vocab, FD_CHUNK) * FD_PARTIAL; }
