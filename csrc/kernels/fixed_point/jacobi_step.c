/* jacobi_step.c - the next Jacobi iterate: what the model says after each position, moved up by one behind the seed.
 *
 * Also which positions stayed and how many are final (equal_tokens in fixed_point_prefix.c).
 */
#pragma once
#include "../tile.h"
#include "fixed_point_prefix.c"

static void jacobi_step(int64_t rows, int64_t n, const int32_t *iterate, const int32_t *drawn, int32_t *next, int32_t *prefix,
                        int8_t *stationary, int32_t *bonus, int8_t *converged)
{
    for (int64_t row = 0; row < rows; row++) {
        const int32_t *y = iterate + row * n, *said = drawn + row * n;          /* (n,) */
        int32_t *z = next + row * n;                                            /* (n,) */
        int8_t *same = stationary + row * n;                                    /* (n,) */
        z[0] = y[0];
        memcpy(z + 1, said, (size_t)(n - 1) * sizeof *z);
        int64_t i = 0;
        for (; i + 16 <= n; i += 16)
            vi_store_int8(same + i, vi_select(vi_equal(vi_load(y + i), vi_load(z + i)), vi_set1(1), vi_set1(0)));
        for (; i < n; i++) same[i] = y[i] == z[i];
        int64_t equal = equal_tokens(n, y, z);
        prefix[row] = (int32_t)fd_min(equal + 1, n);
        bonus[row] = said[n - 1];
        converged[row] = equal == n;
    }
}
