/* unit_rows.c - rows scaled to length 1, for the cosine; for floats and for doubles.
 *
 * Squares are summed in doubles in 16 lanes and folded once, of coordinates divided by the largest, so that nothing overflows.
 */
#pragma once
#include "../../threads.h"
#include "../tile.h"

struct unit_rows { int64_t d; const void *x; void *unit; double *lengths; };

#define FD_REAL 32
#include "../real.h"
#include "unit_rows_real.h"
#define FD_REAL 64
#include "../real.h"
#include "unit_rows_real.h"
static void unit_rows(int bits, int64_t rows, int64_t d, const void *x, void *unit, double *lengths, int threads)
{
    struct unit_rows job = {d, x, unit, lengths};
    fd_parallel_for(threads, rows, 1, bits == 64 ? unit_rows_f64 : unit_rows_f32, &job);
}
