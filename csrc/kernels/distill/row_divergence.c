/* row_divergence.c - how far the student's law q is from the teacher's p, row by row, and the gradient by the student's logits.
 *
 * One template for all: with phi_v = dD / dq_v and psi = q phi, dD / ds_v = (psi_v - q_v sum psi) / T.  psi is taken up to a multiple of
 * q, which the template does not see, such that it is 0 where p = q: equal rows have a gradient of zeros, to the bit.
 *
 * A row is read in chunks that stay in the first cache, in three sweeps.  First each chunk's largest logit m, e = e^((z - m) / T), which
 * is kept, and its sum; the chunks' sums give the law's: q = e f, f one number a chunk.  Then the terms of D and psi, which take the
 * place of the e's.  Then the gradient.  Two rows of memory a thread, and a few numbers a chunk.
 *
 * A chunk is summed in 16 lanes of reals, chunks in doubles, in their order.  A row with NaN or +inf, or of -inf alone, is NaN; D is
 * +inf where the formula says so, and the label's value NaN where the gradient is beyond its reals.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

enum { DIVERGENCE_CHUNK = 1024 };

/* What the terms of kinds have in common. */
enum divergence_body {
    DIVERGENCE_FORWARD, DIVERGENCE_REVERSE, DIVERGENCE_MIXED, DIVERGENCE_JSD, DIVERGENCE_SKEW, DIVERGENCE_SKEW_REVERSE, DIVERGENCE_ALPHA,
    DIVERGENCE_VARIATION, DIVERGENCE_SOFT, DIVERGENCE_ENTROPY, DIVERGENCE_LOGITS, DIVERGENCE_SQUARES
};
static int divergence_body_of(int kind)
{
    static const int8_t bodies[] = {
        [FD_FORWARD_KL] = DIVERGENCE_FORWARD, [FD_REVERSE_KL] = DIVERGENCE_REVERSE, [FD_MIXED_KL] = DIVERGENCE_MIXED,
        [FD_ADAPTIVE_KL] = DIVERGENCE_MIXED, [FD_JSD] = DIVERGENCE_JSD, [FD_SKEW_KL] = DIVERGENCE_SKEW,
        [FD_SKEW_REVERSE_KL] = DIVERGENCE_SKEW_REVERSE, [FD_ALPHA_DIVERGENCE] = DIVERGENCE_ALPHA, [FD_RENYI_DIVERGENCE] = DIVERGENCE_ALPHA,
        [FD_TOTAL_VARIATION] = DIVERGENCE_VARIATION, [FD_LOG_ACCEPTANCE] = DIVERGENCE_VARIATION, [FD_ACCEPTANCE_HYBRID] = DIVERGENCE_MIXED,
        [FD_SOFT_CROSS_ENTROPY] = DIVERGENCE_SOFT, [FD_STUDENT_ENTROPY] = DIVERGENCE_ENTROPY, [FD_LOGIT_MSE] = DIVERGENCE_LOGITS,
        [FD_PROBABILITY_MSE] = DIVERGENCE_SQUARES,
    };
    return bodies[kind];
}

static int divergence_is_of_logarithm(int kind) { return kind == FD_LOG_ACCEPTANCE || kind == FD_RENYI_DIVERGENCE; }

struct divergence {
    const struct fd_divergence *set;
    int64_t rows, vocab;
    const void *student, *teacher;
    const int32_t *labels;
    const double *weights;
    double *values, *label_values;
    void *gradient;
    char *workspace;
    _Atomic int64_t next;                               /* the row to be taken next */
};

static int64_t divergence_chunks(int64_t vocab) { return fd_pad(fd_ceil(vocab, DIVERGENCE_CHUNK), 16); }

static const int8_t divergence_sizes[] = {[FD_NUMBERS_F32] = 4, [FD_NUMBERS_F64] = 8, [FD_NUMBERS_F16] = 2, [FD_NUMBERS_BF16] = 2};
static const void *divergence_at(const void *numbers, int kind, int64_t index) { return (const char *)numbers + index * divergence_sizes[kind]; }

/* The first n of 16 halves; the rest are zeros. */
static vf divergence_halves(int kind, const uint16_t *p, int64_t n)
{
    uint16_t lanes[16] = {0};
    if (n < 16) {
        memcpy(lanes, p, (size_t)n * sizeof *p);
        p = lanes;
    }
    return kind == FD_NUMBERS_F16 ? vf_load_f16(p) : vf_load_bf16(p);
}

#define FD_REAL 32
#include "../real.h"
#include "row_divergence_real.h"
#define FD_REAL 64
#include "../real.h"
#include "row_divergence_real.h"

static int64_t row_divergence_workspace(int bits, int64_t vocab)
{
    return fd_pad(2 * fd_pad(vocab, 16) * (bits / 8) + 4 * divergence_chunks(vocab) * (int64_t)sizeof(double), 64);
}
static void row_divergence_rows(void *context, int64_t begin, int64_t end)
{
    struct divergence *d = context;
    int bits = d->set->bits;
    int64_t room = row_divergence_workspace(bits, d->vocab);
    for (int64_t piece = begin; piece < end; piece++)
        for (int64_t row; (row = atomic_fetch_add(&d->next, 1)) < d->rows;) {
            void *space = d->workspace + piece * room;
            if (bits == 64) divergence_row_f64(d, row, space);
            else divergence_row_f32(d, row, space);
        }
}
static void row_divergence(const struct fd_divergence *set, int64_t rows, int64_t vocab, const void *student, const void *teacher,
                           const int32_t *labels, const double *weights, double *values, double *label_values, void *gradient,
                           void *workspace, int threads)
{
    struct divergence job = {set, rows, vocab, student, teacher, labels, weights, values, label_values, gradient, workspace, 0};
    fd_parallel_for(threads, fd_min(threads, rows), 1, row_divergence_rows, &job);
}
