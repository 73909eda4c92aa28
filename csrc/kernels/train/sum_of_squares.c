/* sum_of_squares.c - the sum of the squares of floats, in doubles.
 *
 * A square is exact in a double, and the largest floats' do not overflow it: the sum is finite where every float is.  The array is cut
 * into up to SUM_PARTS parts, by its length alone; a part is summed in 16 lanes, which fold once; the parts are added in their order.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

enum { SUM_PARTS = 512, SUM_LEAST = 4096 };             /* parts; floats of one, at least */
struct sum_of_squares { int64_t n, size; const float *x; double parts[SUM_PARTS]; };

static void sum_of_squares_parts(void *context, int64_t begin, int64_t end)
{
    struct sum_of_squares *s = context;
    for (int64_t part = begin; part < end; part++) {
        const float *x = s->x + part * s->size;
        int64_t n = fd_min(s->size, s->n - part * s->size), k = 0;
        vd sum = vd_zero();
        for (; k + FD_LANES <= n; k += FD_LANES) {
            vd wide = vd_from_floats(vf_load(x + k));
            sum = vd_add(sum, vd_mul(wide, wide));
        }
        if (k < n) {
            vd wide = vd_from_floats(vf_load_part(x + k, n - k, 0.0f));
            sum = vd_add(sum, vd_mul(wide, wide));
        }
        s->parts[part] = vd_sum(sum);
    }
}
static double sum_of_squares(int64_t n, const float *x, int threads)
{
    struct sum_of_squares job = {.n = n, .size = fd_pad(fd_ceil(n, SUM_PARTS), SUM_LEAST), .x = x};
    if (n == 0) return 0.0;
    int64_t parts = fd_ceil(n, job.size);
    fd_parallel_for(threads, parts, 1, sum_of_squares_parts, &job);
    double sum = 0.0;
    for (int64_t part = 0; part < parts; part++) sum += job.parts[part];
    return sum;
}
