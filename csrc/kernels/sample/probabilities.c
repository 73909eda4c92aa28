/* probabilities.c - the law that `sample` draws from: the softmax over the tokens that its processors leave.
 *
 * Terms are the e^x of sample.c.  Their mass is summed in double, 16 lanes, folded in the order of vf_sum; it is rounded once, and
 * each term is divided by it once.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"
#include "sample.c"

static void probabilities_normalise(int64_t n, const float *x, float *p)         /* (n,), a multiple of 16 */
{
    double mass[16] = {0};
    for (int64_t i = 0; i < n; i += 16) {
        vf_store(p + i, vf_exp(vf_load(x + i)));
        for (int lane = 0; lane < 16; lane++) mass[lane] += (double)p[i + lane];
    }
    for (int i = 0; i < 8; i++) mass[i] += mass[i + 8];
    for (int i = 0; i < 4; i++) mass[i] = mass[2 * i] + mass[2 * i + 1];
    vf total = vf_set1((float)((mass[0] + mass[1]) + (mass[2] + mass[3])));
    for (int64_t i = 0; i < n; i += 16) vf_store(p + i, vf_div(vf_load(p + i), total));
}

struct probabilities { struct sampling in; float *probabilities; };
static void probabilities_row(const struct sampling *in, const struct sample_space *s, int64_t row)
{
    const struct fd_sampler *set = in->sampler;
    int64_t vocab = in->vocab;
    float *out = ((const struct probabilities *)in)->probabilities + row * vocab, top;
    int status = sample_process(in, s, row, &top);
    if (status == FD_OK && set->temperature != 0.0f && sample_keeps_all(set, vocab)) {
        probabilities_normalise(s->padded, s->x, s->list_p);
        memcpy(out, s->list_p, (size_t)vocab * sizeof *out);
        return;
    }
    memset(out, 0, (size_t)vocab * sizeof *out);
    if (status != FD_OK) { out[0] = -(float)status; return; }
    if (set->temperature == 0.0f) { out[sample_first(s, top)] = 1.0f; return; }
    int64_t n = sample_survivors(s, set, vocab), padded = fd_pad(n, 16);
    for (int64_t i = n; i < padded; i++) s->list_x[i] = -INFINITY;
    probabilities_normalise(padded, s->list_x, s->list_p);
    for (int64_t i = 0; i < n; i++) out[s->list_token[i]] = s->list_p[i];
}
static int probabilities(int64_t rows, int64_t vocab, const float *logits, const struct fd_sampler *sampler, const int32_t *seen,
                         const int64_t *seen_offsets, const uint32_t *allowed, float *probabilities, void *workspace, int threads)
{
    struct probabilities job = {{rows, vocab, logits, sampler, seen, seen_offsets, allowed, workspace, probabilities_row, 0},
                                probabilities};
    fd_parallel_for(threads, fd_min(threads, rows), 1, sampling_rows, &job);
    for (int64_t row = 0; row < rows; row++)
        if (probabilities[row * vocab] < 0.0f) return (int)-probabilities[row * vocab];
    return FD_OK;
}
