/* softmax.c - the softmax of rows, and its gradient, for floats and for doubles.
 *
 * p = e^x / sum e^x with x = (z - max z) (1 / temperature).  The sum runs in doubles in 16 lanes, folds once and is rounded once; each
 * term is divided by it once.  -inf adds nothing.  A row with NaN or +inf, or of -inf alone, has a sum of NaN.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

struct softmax { int64_t width; double scale; const void *in; void *out; _Atomic int bad; };

#define FD_REAL 32
#include "../real.h"
#include "softmax_real.h"
#define FD_REAL 64
#include "../real.h"
#include "softmax_real.h"
static int softmax(int bits, int64_t rows, int64_t width, double temperature, const void *logits, void *probabilities, int threads)
{
    struct softmax job = {width, 1.0 / temperature, logits, probabilities, 0};
    fd_parallel_for(threads, rows, 1, bits == 64 ? softmax_rows_f64 : softmax_rows_f32, &job);
    return atomic_load(&job.bad) ? FD_NOT_FINITE : FD_OK;
}
static void softmax_gradient(int bits, int64_t rows, int64_t width, double scale, const void *probabilities, void *gradient, int threads)
{
    struct softmax job = {width, scale, probabilities, gradient, 0};
    fd_parallel_for(threads, rows, 1, bits == 64 ? softmax_gradient_rows_f64 : softmax_gradient_rows_f32, &job);
}
