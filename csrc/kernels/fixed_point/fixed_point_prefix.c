/* fixed_point_prefix.c - how many leading tokens of an iterate are final.
 *
 * Position i of `current` was made from the positions before i of `previous`.  So while both agree, what is made is made from final
 * tokens, and the first that differs still is.
 */
#pragma once
#include "../tile.h"

static int64_t equal_tokens(int64_t n, const int32_t *a, const int32_t *b)      /* how many of the first (n,) agree */
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint32_t equal = vm_bits(vi_equal(vi_load(a + i), vi_load(b + i)));
        if (equal != 0xffffu) return i + __builtin_ctz(~equal);
    }
    while (i < n && a[i] == b[i]) i++;
    return i;
}
static void fixed_point_prefix(int64_t rows, int64_t n, const int32_t *previous, const int32_t *current, int32_t *prefix)
{
    for (int64_t row = 0; row < rows; row++)
        prefix[row] = (int32_t)fd_min(equal_tokens(n, previous + row * n, current + row * n) + 1, n);
}
