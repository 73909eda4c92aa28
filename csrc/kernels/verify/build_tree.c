/* build_tree.c - the best nodes of a pool as one tree.
 *
 * A node counts with the lowest score of its path, that is with the highest rank: its parent then counts no less and stands before
 * it, so it is kept where the node is.  Kept nodes are found by the worst of the best keys; their key then gives way to their place.
 */
#pragma once
#include "../../base.h"
#include "best.c"

static int64_t build_tree(int64_t n, const int32_t *parents, const float *scores, int64_t budget, int32_t *nodes, int32_t *kept_parents,
                          uint64_t *workspace)
{
    uint64_t *keys = workspace;                        /* (n,), then the best: (min(budget, n),) */
    struct best best = {workspace + n, 0, fd_min(budget, n)};
    for (int64_t i = 0; i < n; i++) {
        int32_t parent = parents[i];
        if (parent < -1 || parent >= i) return -1 - i;
        uint32_t rank = best_rank(scores[i]), above = parent < 0 ? 0 : (uint32_t)(keys[parent] >> 32);
        keys[i] = best_key(rank > above ? rank : above, (uint64_t)i);
        best_offer(&best, keys[i]);
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (keys[i] > best.keys[0]) continue;
        nodes[kept] = (int32_t)i;
        kept_parents[kept] = parents[i] < 0 ? -1 : (int32_t)keys[parents[i]];
        keys[i] = (uint64_t)kept++;
    }
    return kept;
}
