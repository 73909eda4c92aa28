/* row_divergence_topk.c - row_divergence where the teacher is known at k tokens of a row alone.
 *
 * Either the rest is one more outcome, of the tail's probability on both sides, or both laws are normalised over the k tokens.  The
 * logarithms of the outcomes' probabilities are logits of a short row, and its gradient g' is of row_divergence; by the chain rule a
 * listed token's gradient is its own g', and that of another one g' of the tail times its share of the tail, q_v / q_tail.
 *
 * The tail's probability is the sum of what is not listed, never 1 less what is.  A row whose list repeats a token has the value -inf.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "row_divergence.c"

struct divergence_topk {
    struct divergence all;                              /* its teacher NULL */
    int64_t k;
    const int32_t *tokens;                              /* (rows, k), -1: none */
    const void *teacher, *tail;                         /* (rows, k), (rows,) of reals: log probabilities; tail NULL: normalised */
};

#define FD_REAL 32
#include "../real.h"
#include "row_divergence_topk_real.h"
#define FD_REAL 64
#include "../real.h"
#include "row_divergence_topk_real.h"

static int64_t row_divergence_topk_workspace(int bits, int64_t vocab, int64_t k)
{
    return fd_pad(4 * fd_pad(k + 1, 16) * (bits / 8) + 4 * divergence_chunks(k + 1) * (int64_t)sizeof(double), 64)
         + row_divergence_workspace(bits, vocab);
}
static void row_divergence_topk_rows(void *context, int64_t begin, int64_t end)
{
    struct divergence_topk *d = context;
    int bits = d->all.set->bits;
    int64_t room = row_divergence_topk_workspace(bits, d->all.vocab, d->k);
    for (int64_t piece = begin; piece < end; piece++)
        for (int64_t row; (row = atomic_fetch_add(&d->all.next, 1)) < d->all.rows;) {
            void *space = d->all.workspace + piece * room;
            if (bits == 64) divergence_topk_row_f64(d, row, space);
            else divergence_topk_row_f32(d, row, space);
        }
}
static void row_divergence_topk(const struct fd_divergence *set, int64_t rows, int64_t vocab, int64_t k, const void *student,
                                const int32_t *tokens, const void *teacher, const void *tail, const int32_t *labels,
                                const double *weights, double *values, double *label_values, void *gradient, void *workspace, int threads)
{
    struct divergence_topk job = {{set, rows, vocab, student, NULL, labels, weights, values, label_values, gradient, workspace, 0}, k,
                                  tokens, teacher, tail};
    fd_parallel_for(threads, fd_min(threads, rows), 1, row_divergence_topk_rows, &job);
}
