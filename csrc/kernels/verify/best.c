/* best.c - the best few of many: the highest scores, among equals the lowest indices.
 *
 * A score and an index make one key of 64 bits, the smallest the best, so no two are equal.  The best so far are a heap with the
 * worst of them at its root.
 */
#pragma once
#include <stdint.h>
#include <string.h>

static inline uint32_t best_rank(float score)          /* the highest score has the lowest rank; -0 ranks as 0 */
{
    uint32_t bits;
    memcpy(&bits, &score, 4);
    if (bits == 0x80000000u) bits = 0;
    return bits >> 31 ? bits : bits ^ 0x7fffffffu;
}
static inline float best_score(uint64_t key)
{
    uint32_t rank = (uint32_t)(key >> 32), bits = rank >> 31 ? rank : rank ^ 0x7fffffffu;
    float score;
    memcpy(&score, &bits, 4);
    return score;
}
static inline uint64_t best_key(uint32_t rank, uint64_t index) { return (uint64_t)rank << 32 | index; }    /* index < 2^32 */

struct best { uint64_t *keys; int64_t count, room; };  /* keys (room,), room >= 1 */
static void best_sink(uint64_t *keys, int64_t count, uint64_t key)               /* in place of the root */
{
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && keys[child + 1] > keys[child]) child++;
        if (keys[child] < key) break;
        keys[at] = keys[child];
    }
    keys[at] = key;
}
static void best_offer(struct best *b, uint64_t key)
{
    if (b->count == b->room) {
        if (key < b->keys[0]) best_sink(b->keys, b->count, key);
        return;
    }
    int64_t at = b->count++;
    for (; at > 0 && b->keys[(at - 1) / 2] < key; at = (at - 1) / 2) b->keys[at] = b->keys[(at - 1) / 2];
    b->keys[at] = key;
}
static inline void best_sort(struct best *b)                  /* the best first; no longer a heap */
{
    for (int64_t end = b->count - 1; end > 0; end--) {
        uint64_t last = b->keys[end];
        b->keys[end] = b->keys[0];
        best_sink(b->keys, end, last);
    }
}
