/* head_divergence.c - a divergence of the logits that a head makes of hidden states, and its gradients by both, without the logits.
 *
 * The vocabulary passes by in blocks of 144 tokens, HEAD_ROWS rows at a time see them.  Of a block the logits of all these rows are made
 * (a matrix product), used, and forgotten: once to measure the laws, once for the sums that a gradient wants, once for the gradient, of
 * which hidden states and head each take their share (two products more).  Where the sum of psi is known beforehand (forward KL,
 * cross entropies) the second time falls away.  So it does where the teacher is known at k tokens alone: their logits are set aside as they
 * are measured, and what is left over them is a short row (row_divergence_topk.c).
 *
 * Every element is summed in one order: a logit along the width; a hidden state's gradient along the tokens of a block, blocks in their
 * order; the head's along the rows.  Blocks and tasks are cut by shape, so that threads change nothing.
 *
 * Memory: a block of the head, tokens in lanes; of the gradient one block; 100 bytes a row.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "row_divergence.c"
#include "row_divergence_topk.c"

enum {
    HEAD_TILE = FD_ROW_TILE == 8 ? 8 : 6,       /* rows of a register tile: with 2 registers a row, 12 of 16 are sums */
    HEAD_GROUP = 24,            /* rows, or tokens, of a task: whole tiles */
    HEAD_BLOCK = 144,           /* tokens: whole groups, and whole panels of 16 */
    HEAD_ROWS = 528,            /* rows that share one passing of the vocabulary: whole groups */
    HEAD_DEPTH = 256            /* terms of a sum that are summed before other sums have their turn: 16 columns of them stay in cache */
};

/* c (rows, n <= 16) = [c +] sum over k of a(r, k) b(k, lanes), in the order of k. */
enum head_start { HEAD_NEW, HEAD_ADD, HEAD_GO_ON };     /* the sum begins at 0; likewise, and is added to c; goes on from c */
FD_SHAPED void head_tile(const int rows, const int whole, int start, int64_t depth, const float *a, int64_t a_row, int64_t a_step,
                         const float *b, int64_t b_step, int64_t n, float *c, int64_t c_row)
{
    vf sum[HEAD_TILE];
    FD_ROWS sum[r] = start == HEAD_GO_ON ? vf_load_part(c + r * c_row, whole ? 16 : n, 0.0f) : vf_zero();
    for (int64_t k = 0; k < depth; k++, b += b_step) {
        vf bk = vf_load_part(b, whole ? 16 : n, 0.0f);
        FD_ROWS sum[r] = vf_fma(vf_set1(a[r * a_row + k * a_step]), bk, sum[r]);
    }
    if (start == HEAD_ADD) FD_ROWS sum[r] = vf_add(vf_load_part(c + r * c_row, whole ? 16 : n, 0.0f), sum[r]);
    FD_ROWS vf_store_part(c + r * c_row, whole ? 16 : n, sum[r]);
}
static void head_tiles(int64_t rows, int start, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b,
                       int64_t b_step, int64_t n, float *c, int64_t c_row)
{
    for (; rows >= HEAD_TILE && n >= 16; rows -= HEAD_TILE, a += HEAD_TILE * a_row, c += HEAD_TILE * c_row)
        head_tile(HEAD_TILE, 1, start, depth, a, a_row, a_step, b, b_step, 16, c, c_row);
    for (; rows > 0; rows--, a += a_row, c += c_row) head_tile(1, 0, start, depth, a, a_row, a_step, b, b_step, n, c, c_row);
}

enum head_pass { HEAD_MEASURE, HEAD_OVERLAP, HEAD_TERMS, HEAD_GRADIENT };
struct head_law { float most; double total; float log_sum; };
struct head_row {
    struct head_law q, p, plain;                        /* p: the teacher's; or, where it is a list, q of what is not listed; plain: the */
                                                        /* student's at temperature 1 */
    float label_logit;
    struct divergence_sums_f32 sums;
    double forward, slope, mean;                        /* the mixture's share; see divergence_between */
    float near;                                         /* see divergence_mix */
    int64_t listed;                                     /* tokens of the row's list that have passed by */
    double tail_by;                                     /* the gradient by what is not listed, of which a token gets its share */
};
struct head_job {
    const struct fd_head_divergence *loss;
    enum head_pass pass;
    int body, sums_too;                                 /* the gradient's pass is the terms' too */
    int64_t first, count;                               /* rows */
    int64_t at, n;                                      /* tokens of the block */
    struct head_row *state;                             /* (HEAD_ROWS,) */
    float *block, *teacher_block;                       /* panels of 16 tokens: (width, 16) */
    float *gradient;                                    /* (HEAD_ROWS, HEAD_BLOCK) by the logits */
    float *listed;                                      /* (HEAD_ROWS, k) logits of listed tokens; then the gradient by them */
    float *outcomes;                                    /* work space of a short row: 4 (k + 1,), padded, */
    double *numbers;                                    /* and 4 divergence_chunks(k + 1) */
};

static void head_pack(const float *head, int64_t width, int64_t at, int64_t n, float *panel)
{
    for (int64_t v = 0; v < 16; v++)
        for (int64_t k = 0; k < width; k++) panel[k * 16 + v] = v < n ? head[(at + v) * width + k] : 0.0f;
}
/* Logits of `rows` rows for the block, -inf beyond its end. */
static void head_logits(const float *hidden, int64_t width, int64_t rows, const float *block, int64_t n, float *logits)
{
    for (int64_t k = 0; k < width; k += HEAD_DEPTH)
        for (int64_t panel = 0; panel < fd_ceil(n, 16); panel++)
            head_tiles(rows, k ? HEAD_GO_ON : HEAD_NEW, fd_min(HEAD_DEPTH, width - k), hidden + k, width, 1,
                       block + (panel * width + k) * 16, 16, 16, logits + panel * 16, HEAD_BLOCK);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = n; v < fd_pad(n, 16); v++) logits[r * HEAD_BLOCK + v] = -INFINITY;
}

/* n more logits, padded, of a law. */
static void head_measure(struct head_law *law, float inverse, const float *z, int64_t n)
{
    vf top = vf_set1(-INFINITY), sum = vf_zero();
    for (int64_t k = 0; k < n; k += 16) top = vf_max(vf_load(z + k), top);
    float most = fd_max_lane(top);
    if (most > law->most) {
        law->total = law->total > 0.0 ? law->total * fd_exp_double(((double)law->most - (double)most) * (double)inverse) : law->total;
        law->most = most;
    }
    vf base = vf_set1(law->most == -INFINITY ? 0.0f : law->most), by = vf_set1(inverse);
    for (int64_t k = 0; k < n; k += 16) sum = vf_add(sum, fd_exp_negative(vf_mul(vf_sub(vf_load(z + k), base), by)));
    law->total += (double)vf_sum(sum);
}
static void head_probabilities(const struct head_law *law, float inverse, const float *z, int64_t n, float *e)
{
    vf most = vf_set1(law->most), log_sum = vf_set1(law->log_sum), by = vf_set1(inverse), zero = vf_zero();
    for (int64_t k = 0; k < n; k += 16)
        vf_store(e + k, fd_exp_negative(vf_min(vf_sub(vf_mul(vf_sub(vf_load(z + k), most), by), log_sum), zero)));
}

/* The law of listed logits and of all others. */
static void head_join(struct head_law *law, float inverse, int64_t k, const float *listed)
{
    float most = law->most;
    for (int64_t j = 0; j < k; j++) most = listed[j] > most ? listed[j] : most;
    if (most == -INFINITY) return;
    law->total = law->total > 0.0 ? law->total * fd_exp_double(((double)law->most - (double)most) * (double)inverse) : law->total;
    law->most = most;
    for (int64_t j = 0; j < k; j++)
        law->total += listed[j] == -INFINITY ? 0.0 : fd_exp_double(((double)listed[j] - (double)most) * (double)inverse);
}
/* Logits of listed tokens go from the block to the row's list. */
static void head_set_aside(const struct head_job *job, int64_t row, float *z)
{
    struct head_row *state = job->state + (row - job->first);
    int64_t k = job->loss->k;
    const int32_t *tokens = job->loss->tokens + row * k;
    float *listed = job->listed + (row - job->first) * k;
    for (; state->listed < k && tokens[state->listed] < job->at + job->n; state->listed++) {
        int64_t place = tokens[state->listed] - job->at;
        listed[state->listed] = place < 0 ? -INFINITY : z[place];           /* -1: none */
        if (place >= 0) z[place] = -INFINITY;
    }
}
/* Of a row that has been measured, its list apart: the law, D, and the gradient by the list and by what is left. */
static void head_short(const struct head_job *job, int64_t i)
{
    const struct fd_head_divergence *loss = job->loss;
    const struct fd_divergence *set = &loss->set;
    struct head_row *state = job->state + i;
    int64_t row = job->first + i, k = loss->k, width = loss->tail ? k + 1 : k, padded = fd_pad(k + 1, 16);
    float *listed = job->listed + i * k, *x = job->outcomes, *y = x + padded, *ex = y + padded, *ey = ex + padded;
    float inverse = (float)(1.0 / set->temperature);
    const struct head_law *rest = &state->p;
    state->p = state->q;
    state->p.log_sum = (float)fd_log_double(rest->total);
    head_join(&state->q, inverse, k, listed);
    head_join(&state->plain, 1.0f, k, listed);
    state->q.log_sum = (float)fd_log_double(state->q.total);
    for (int64_t j = 0; j < k; j++) {
        x[j] = (listed[j] - state->q.most) * inverse - state->q.log_sum;
        y[j] = loss->tokens[row * k + j] < 0 ? -INFINITY : loss->log_probs[row * k + j] * (loss->tail ? 1.0f : inverse);
    }
    if (loss->tail) {
        double far = ((double)rest->most - (double)state->q.most) * (double)inverse;
        x[k] = rest->total > 0.0    ? (float)(far + fd_log_double(rest->total) - (double)state->q.log_sum)
               : rest->total == 0.0 ? -INFINITY
                                    : NAN;
        y[k] = loss->tail[row];
    }
    double by = loss->weights[row] * set->scale / set->temperature;
    if (!divergence_short_f32(set, width, x, y, ex, ey, job->numbers, loss->head_gradient != NULL, by, loss->values + row)) {
        loss->values[row] = NAN;
        return;
    }
    memcpy(listed, ey, (size_t)k * sizeof *listed);
    state->tail_by = loss->tail && rest->total > 0.0 ? (double)ey[k] : 0.0;
    state->listed = 0;
}
/* f: the gradient by D. */
static void head_short_gradient(const struct head_job *job, int64_t row, const float *z, float *f)
{
    struct head_row *state = job->state + (row - job->first);
    int64_t k = job->loss->k, n = fd_pad(job->n, 16);
    const int32_t *tokens = job->loss->tokens + row * k;
    if (state->tail_by == 0.0) memset(f, 0, (size_t)n * sizeof *f);
    else head_probabilities(&state->p, (float)(1.0 / job->loss->set.temperature), z, n, f);
    vf by = vf_set1((float)state->tail_by);
    for (int64_t i = 0; i < n; i += 16) vf_store(f + i, vf_mul(by, vf_load(f + i)));
    for (; state->listed < k && tokens[state->listed] < job->at + job->n; state->listed++)
        if (tokens[state->listed] >= job->at) f[tokens[state->listed] - job->at] = job->listed[(row - job->first) * k + state->listed];
}

static struct divergence_mix_f32 head_mix(const struct fd_head_divergence *loss, const struct head_row *state)
{
    const struct fd_divergence *set = &loss->set;
    int by_vocab = set->kind == FD_LOGIT_MSE || set->kind == FD_PROBABILITY_MSE;
    struct divergence_mix_f32 mix = {(float)set->forward, (float)set->reverse, 0.0f, (float)(by_vocab ? 1.0 / (double)loss->vocab : set->parameter),
                                     state->near};
    if (set->kind == FD_ACCEPTANCE_HYBRID) {
        mix.forward = (float)state->forward;
        mix.variation = 1.0f - mix.forward;
    }
    return mix;
}
static void head_row_block(const struct head_job *job, int64_t row, float *z, const float *teacher_z, float *g)
{
    const struct fd_head_divergence *loss = job->loss;
    const struct fd_divergence *set = &loss->set;
    struct head_row *state = job->state + (row - job->first);
    int64_t n = job->n, padded = fd_pad(n, 16), label = loss->labels ? loss->labels[row] : -1;
    float inverse = (float)(1.0 / set->temperature), buffer[DIVERGENCE_CHUNK];
    int tempered = label >= 0 && inverse != 1.0f, with_teacher = set->kind != FD_STUDENT_ENTROPY && loss->k == 0;
    const float *t = z;
    if (with_teacher && teacher_z) t = teacher_z;
    else if (with_teacher) {
        struct divergence_law_f32 side = {divergence_at(loss->teacher, set->teacher_numbers, loss->index[row] * loss->vocab),
                                          set->teacher_numbers, set->teacher_is_law, inverse, NULL, NULL, NULL, 0.0f, 0.0f};
        t = divergence_chunk_f32(&side, job->at, n, buffer);
    }
    if (job->pass == HEAD_MEASURE) {
        if (label >= job->at && label < job->at + n) state->label_logit = z[label - job->at];
        if (loss->k) head_set_aside(job, row, z);
        head_measure(&state->q, inverse, z, padded);
        if (with_teacher) head_measure(&state->p, inverse, t, padded);
        if (tempered) head_measure(&state->plain, 1.0f, z, padded);
        return;
    }
    float e[HEAD_BLOCK], f[HEAD_BLOCK];
    double one = 1.0;
    struct divergence_law_f32 q = {NULL, 0, 0, inverse, e, &one, NULL, state->q.most, state->q.log_sum}, p = q;
    p.most = state->p.most;
    p.log_sum = state->p.log_sum;
    head_probabilities(&state->q, inverse, z, padded, e);
    if (with_teacher) head_probabilities(&state->p, inverse, t, padded, f);
    else memset(f, 0, sizeof f);
    struct divergence_mix_f32 mix = head_mix(loss, state);
    struct divergence_sums_f32 unused, *sums = job->pass == HEAD_GRADIENT && !job->sums_too ? &unused : &state->sums;
    if (loss->k) head_short_gradient(job, row, z, f);
    else divergence_terms_of_f32(job->pass == HEAD_OVERLAP ? DIVERGENCE_VARIATION : job->body, job->pass == HEAD_GRADIENT, &mix, &q, &p, 0,
                                 padded, z, t, e, f, sums);
    if (job->pass != HEAD_GRADIENT) return;

    double by = loss->k ? 1.0 : loss->weights[row] * set->scale * state->slope / set->temperature;
    double label_by = label >= 0 ? loss->weights[row] * set->label_scale : 0.0;
    vf psi_by = vf_set1((float)by), q_by = vf_set1((float)((tempered ? 0.0 : label_by) - by * state->mean)), plain_by = vf_set1((float)label_by);
    vf most = vf_set1(state->plain.most), log_sum = vf_set1(state->plain.log_sum), zero = vf_zero();
    for (int64_t k = 0; k < padded; k += 16) {
        vf gk = vf_fma(psi_by, vf_load(f + k), vf_mul(q_by, vf_load(e + k)));
        if (tempered) gk = vf_fma(plain_by, fd_exp_negative(vf_min(vf_sub(vf_sub(vf_load(z + k), most), log_sum), zero)), gk);
        vf_store(g + k, gk);
    }
    if (label >= job->at && label < job->at + n) g[label - job->at] -= (float)label_by;
}

static int64_t head_tasks(void *context, int64_t stage)
{
    const struct head_job *job = context;
    return stage == 0 ? fd_ceil(job->n, 16) : fd_ceil(stage == 1 ? job->count : job->n, HEAD_GROUP);
}
/* Stage 0 packs the block, 1 goes over the rows, 2 over the block's tokens: the head's gradient. */
static void head_stage(void *context, int64_t stage, int64_t task)
{
    const struct head_job *job = context;
    const struct fd_head_divergence *loss = job->loss;
    int64_t width = loss->width, teacher_width = loss->teacher_width, first = task * (stage == 0 ? 16 : HEAD_GROUP);
    if (stage == 0) {
        head_pack(loss->head, width, job->at + first, job->n - first, job->block + first * width);
        if (loss->teacher_head) head_pack(loss->teacher_head, teacher_width, job->at + first, job->n - first, job->teacher_block + first * teacher_width);
    } else if (stage == 1) {
        float logits[HEAD_GROUP * HEAD_BLOCK], teacher[HEAD_GROUP * HEAD_BLOCK];
        int64_t rows = fd_min(HEAD_GROUP, job->count - first), row = job->first + first;
        float *g = job->gradient + first * HEAD_BLOCK;
        head_logits(loss->hidden + row * width, width, rows, job->block, job->n, logits);
        if (loss->teacher_head) head_logits(loss->teacher_hidden + row * teacher_width, teacher_width, rows, job->teacher_block, job->n, teacher);
        for (int64_t r = 0; r < rows; r++)
            head_row_block(job, row + r, logits + r * HEAD_BLOCK, loss->teacher_head ? teacher + r * HEAD_BLOCK : NULL, g + r * HEAD_BLOCK);
        if (job->pass == HEAD_GRADIENT)
            for (int64_t j = 0; j < width; j += 16)
                head_tiles(rows, HEAD_ADD, job->n, g, HEAD_BLOCK, 1, loss->head + job->at * width + j, width, width - j,
                           loss->hidden_gradient + row * width + j, width);
    } else {
        int64_t tokens = fd_min(HEAD_GROUP, job->n - first);
        for (int64_t r = 0; r < job->count; r += HEAD_DEPTH)
            for (int64_t j = 0; j < width; j += 16)
                head_tiles(tokens, job->first + r ? HEAD_GO_ON : HEAD_NEW, fd_min(HEAD_DEPTH, job->count - r), job->gradient + r * HEAD_BLOCK + first,
                           1, HEAD_BLOCK, loss->hidden + (job->first + r) * width + j, width, width - j,
                           loss->head_gradient + (job->at + first) * width + j, width);
    }
}

static void head_over_the_vocabulary(struct head_job *job, enum head_pass pass, int threads)
{
    job->pass = pass;
    for (job->at = 0; job->at < job->loss->vocab; job->at += HEAD_BLOCK) {
        job->n = fd_min(HEAD_BLOCK, job->loss->vocab - job->at);
        fd_run_stages(threads, pass == HEAD_GRADIENT ? 3 : 2, head_tasks, head_stage, NULL, job);
    }
}
static void head_settle(struct head_law *law) { law->log_sum = (float)fd_log_double(law->total); }
static void head_value(const struct head_job *job, int64_t i)
{
    struct head_row *state = job->state + i;
    job->loss->values[job->first + i] = divergence_value_f32(&job->loss->set, &state->sums, &state->slope);
    state->mean = job->body == DIVERGENCE_LOGITS ? 0.0 : state->sums.psi;
}

/* Whether the sums must be taken anew, since there are rows whose laws have little in common: see divergence_mix. */
static int head_any_far(const struct head_job *job)
{
    const struct fd_divergence *set = &job->loss->set;
    int any = 0;
    if (!divergence_is_of_logarithm(set->kind)) return 0;
    for (int64_t i = 0; i < job->count; i++) {
        job->state[i].near = divergence_common_f32(set, &job->state[i].sums) >= 0.5 ? 1.0f : 0.0f;
        any |= job->state[i].near == 0.0f;
    }
    for (int64_t i = 0; any && i < job->count; i++) job->state[i].sums = (struct divergence_sums_f32){0.0, 0.0, 0.0};
    return any;
}

static int64_t head_divergence_workspace(const struct fd_head_divergence *loss)
{
    int64_t rows = fd_min(loss->rows, HEAD_ROWS), k = loss->k, padded = fd_pad(k + 1, 16);
    int64_t list = k ? 4 * (rows * k + 4 * padded) + 8 * 4 * divergence_chunks(k + 1) : 0;
    return fd_pad((int64_t)sizeof(struct head_row) * rows, 64) + 4 * HEAD_BLOCK * (loss->width + loss->teacher_width + rows) + list;
}
static void head_divergence(const struct fd_head_divergence *loss, void *workspace, int threads)
{
    const struct fd_divergence *set = &loss->set;
    int64_t most_rows = fd_min(loss->rows, HEAD_ROWS);
    int body = divergence_body_of(set->kind), gradient = loss->head_gradient != NULL;
    struct head_job job = {.loss = loss, .pass = HEAD_MEASURE, .body = body, .state = workspace};
    job.block = (float *)(void *)((char *)workspace + fd_pad((int64_t)sizeof(struct head_row) * most_rows, 64));
    job.teacher_block = job.block + HEAD_BLOCK * loss->width;
    job.gradient = job.teacher_block + HEAD_BLOCK * loss->teacher_width;
    job.numbers = (double *)(void *)(job.gradient + HEAD_BLOCK * most_rows);
    job.outcomes = (float *)(void *)(job.numbers + 4 * divergence_chunks(loss->k + 1));
    job.listed = job.outcomes + 4 * fd_pad(loss->k + 1, 16);
    /* psi sums up to 0, or it does not matter what it sums up to */
    job.sums_too = gradient && (body == DIVERGENCE_FORWARD || body == DIVERGENCE_SOFT || body == DIVERGENCE_LOGITS || set->scale == 0.0);
    for (; job.first < loss->rows; job.first += HEAD_ROWS) {
        job.count = fd_min(HEAD_ROWS, loss->rows - job.first);
        for (int64_t i = 0; i < job.count; i++) {
            struct head_law none = {-INFINITY, 0.0, 0.0f};
            job.state[i] = (struct head_row){.q = none, .p = none, .plain = none, .forward = 1.0, .slope = 1.0, .near = 1.0f};
        }
        head_over_the_vocabulary(&job, HEAD_MEASURE, threads);
        for (int64_t i = 0; i < job.count; i++) {
            struct head_row *state = job.state + i;
            int labelled = loss->labels && loss->labels[job.first + i] >= 0;
            if (loss->k) head_short(&job, i);
            head_settle(&state->q);
            head_settle(&state->p);
            head_settle(&state->plain);
            if (set->temperature == 1.0) state->plain = state->q;
            loss->label_values[job.first + i] = labelled ? (double)state->plain.log_sum - (double)(state->label_logit - state->plain.most) : 0.0;
        }
        if (set->kind == FD_ACCEPTANCE_HYBRID && !loss->k) {
            head_over_the_vocabulary(&job, HEAD_OVERLAP, threads);
            for (int64_t i = 0; i < job.count; i++) {
                job.state[i].forward = fd_exp_double(-set->parameter * job.state[i].sums.overlap);
                job.state[i].sums = (struct divergence_sums_f32){0.0, 0.0, 0.0};
            }
        }
        if (!job.sums_too && !loss->k) {
            head_over_the_vocabulary(&job, HEAD_TERMS, threads);
            if (gradient && head_any_far(&job)) head_over_the_vocabulary(&job, HEAD_TERMS, threads);
            for (int64_t i = 0; i < job.count; i++) head_value(&job, i);
        }
        if (gradient) head_over_the_vocabulary(&job, HEAD_GRADIENT, threads);
        if (job.sums_too && !loss->k)
            for (int64_t i = 0; i < job.count; i++) head_value(&job, i);
        for (int64_t i = 0; i < job.count; i++) {
            const struct head_row *state = job.state + i;
            int good = state->q.most > -INFINITY && state->q.total < INFINITY;
            if (set->kind != FD_STUDENT_ENTROPY && !loss->k) good &= state->p.most > -INFINITY && state->p.total < INFINITY;
            if (!good) loss->values[job.first + i] = NAN;
        }
    }
}
