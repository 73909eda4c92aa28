/* tree_layout.c - a tree from its parents: depths, ancestors as bits, leaves, children in order.
 *
 * A parent stands before its child, so one pass from the root on does for depths and ancestors.  Children are placed from the last
 * node to the first, each before those already there: they end in order, and an offset that was an end has become a beginning.
 */
#pragma once
#include <string.h>
#include "../../base.h"

static int64_t tree_layout(int64_t n, const int32_t *parents, int32_t *depths, uint64_t *ancestors, int32_t *leaves,
                           int32_t *children, int32_t *child_offsets)
{
    int64_t words = fd_ceil(n, 64), leaf_count = 0;
    memset(child_offsets, 0, (size_t)(n + 1) * sizeof *child_offsets);
    for (int64_t i = 0; i < n; i++) {
        int32_t parent = parents[i];
        if (i == 0 ? parent != -1 : parent < 0 || parent >= i) return -1 - i;
        uint64_t *own = ancestors + i * words;
        if (i == 0) memset(own, 0, (size_t)words * sizeof *own);
        else memcpy(own, ancestors + parent * words, (size_t)words * sizeof *own);
        own[i / 64] |= (uint64_t)1 << i % 64;
        depths[i] = i == 0 ? 0 : depths[parent] + 1;
        if (i > 0) child_offsets[parent]++;            /* so far a count */
    }
    for (int64_t i = 0; i < n; i++) {
        if (child_offsets[i] == 0) leaves[leaf_count++] = (int32_t)i;
        if (i > 0) child_offsets[i] += child_offsets[i - 1];
    }
    child_offsets[n] = (int32_t)(n - 1);
    for (int64_t i = n - 1; i > 0; i--) children[--child_offsets[parents[i]]] = (int32_t)i;
    return leaf_count;
}
