/* memory.c - what C allocates, which is counted, and how much memory packed weights and work spaces of kernels want. */
#include <stdlib.h>
#include <string.h>
#include "internal.h"

static _Atomic int64_t allocations;
int64_t fd_allocations(void) { return allocations; }
void *fd_malloc(size_t bytes) { allocations++; return aligned_alloc(64, (bytes + 63) / 64 * 64); }     /* on a cache line */

int64_t fd_packed_bytes(int format, int64_t outputs, int64_t inputs)
{
    int64_t blocks = fd_ceil(inputs, FD_BLOCK), rows = fd_stride(outputs);
    switch (format) {
    case FD_F32: return rows * inputs * 4;
    case FD_F16: case FD_BF16: return rows * inputs * 2;
    case FD_Q8: return rows * blocks * (FD_BLOCK + 2);
    default: return rows * blocks * (FD_BLOCK / 2 + 4);
    }
}

/* ---- work spaces, in bytes but where the header says otherwise ---- */
int64_t fd_sample_workspace(int64_t vocab)                                   /* struct sample_space in kernels/sample/sample.c */
{
    int64_t padded = fd_pad(vocab, FD_CHUNK), floats = 4 * padded + padded / 16;
    return FD_BUCKETS * (int64_t)sizeof(uint64_t) + floats * (int64_t)sizeof(float);
}
int64_t fd_pairwise_distance_workspace(int bits, int64_t batch, int64_t n, int64_t m, int64_t d)
{
    return batch * (d < FD_FEW_COORDINATES ? d * fd_pad(m, 16) : fd_ceil(d, FD_COORDINATES) * n * m) * (bits / 8);
}
int64_t fd_distance_gradient_workspace(int bits, int64_t batch, int64_t m, int64_t d)
{
    return d < FD_FEW_SLOPES ? batch * d * fd_pad(m, 16) * (bits / 8) : 0;
}
int64_t fd_unrolled_sinkhorn_workspace(int64_t batch, int64_t n, int64_t m, int64_t iterations)
{
    return batch * (2 * n * fd_pad(m, 16) + (iterations + 1) * unrolled_potentials(n, m));
}
int64_t fd_unrolled_sinkhorn_steps(int64_t iterations) { return unrolled_steps(iterations); }
int64_t fd_ngram_pool_bytes(int64_t ngram, int64_t capacity)
{
    return (int64_t)sizeof(struct ngram_header) + ngram_nodes(capacity) * (int64_t)sizeof(struct ngram_node)
         + (ngram_buckets(capacity) + (capacity + 1) * ngram) * (int64_t)sizeof(int32_t);
}
int64_t fd_ngram_pool_count(const struct fd_ngram_pool *pool) { return ((const struct ngram_header *)pool->memory)->count; }
void fd_ngram_pool_clear(const struct fd_ngram_pool *pool)              /* header, heads, and node 0, the end of the ring of all */
{
    int64_t heads = ngram_buckets(pool->capacity) * (int64_t)sizeof(int32_t);
    memset(pool->memory, 0, sizeof(struct ngram_header) + (size_t)heads + sizeof(struct ngram_node));
}
int64_t fd_verify_tree_workspace(int rule, int64_t nodes, int64_t vocab)    /* verify_space in kernels/verify/verify_tree.c */
{
    return verify_head_bytes(rule, nodes) + verify_slots(rule, nodes) * verify_slot_bytes(vocab);
}
