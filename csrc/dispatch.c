/* dispatch.c - which levels this CPU runs, which one is selected, and the entries that Python calls. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

extern const struct fd_kernels fd_kernels_scalar;
#if defined(__x86_64__)
extern const struct fd_kernels fd_kernels_avx2, fd_kernels_avx512;

/* The operating system saves the registers that `mask` names (XCR0: 2 and 4 for AVX, 0xe0 more for AVX-512). */
static int os_saves(unsigned mask)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return (low & mask) == mask;
}
static int has_avx2(void)
{
    unsigned a, b, c, d, e, b7, f, g;
    const unsigned need = 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29;         /* FMA, OSXSAVE, AVX, F16C */
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need) != need || !os_saves(0x6)) return 0;
    return __get_cpuid_count(7, 0, &e, &b7, &f, &g) && (b7 & 1u << 5);
}
#if defined(FD_EMULATE_AVX512)
static int has_avx512(void) { return has_avx2(); }
#else
static int has_avx512(void)
{
    unsigned a, b, c, d;
    const unsigned need = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;         /* F, DQ, BW, VL */
    if (!has_avx2() || !os_saves(0xe6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return (b & need) == need && (c & 1u << 11);                             /* VNNI */
}
#endif
#endif
static int always(void) { return 1; }

/* Worst first.  The place for neon and dotprod is here: their words in vec_neon.h. */
static const struct { const struct fd_kernels *kernels; int (*supported)(void); } levels[] = {
    {&fd_kernels_scalar, always},
#if defined(__x86_64__)
    {&fd_kernels_avx2, has_avx2},
    {&fd_kernels_avx512, has_avx512},
#endif
};
static int selected;

int fd_isa_count(void) { return (int)(sizeof levels / sizeof *levels); }
const char *fd_isa_name(int level) { return levels[level].kernels->name; }
int fd_isa_supported(int level) { return levels[level].supported(); }
int fd_isa_selected(void) { return selected; }
void fd_isa_select(int level) { selected = level; }
const struct fd_kernels *fd_selected_kernels(void) { return levels[selected].kernels; }

int fd_isa_shares_code(int level, int other)
{
    const struct fd_kernels *a = levels[level].kernels, *b = levels[other].kernels;
    return a->op_run == b->op_run || a->transport == b->transport || a->linear == b->linear || a->quantize_rows == b->quantize_rows
        || a->row_statistics == b->row_statistics || a->sample == b->sample;
}
int fd_kernel_name(int format, char *text, int size)
{
    const struct fd_kernels *level = fd_selected_kernels();
    return snprintf(text, (size_t)size, "%s (%s, %d x %d tile)", level->name, level->product[format], FD_LANES, level->row_tile);
}

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

struct pack { int format; int64_t outputs, inputs; const void *data; const uint16_t *scale, *minimum; void *packed; };
static void pack_range(void *context, int64_t begin, int64_t end)
{
    const struct pack *p = context;
    fd_kernels_scalar.pack_rows(p->format, p->outputs, p->inputs, p->data, p->scale, p->minimum, p->packed, begin, end);
}
int fd_pack(int format, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale, const uint16_t *minimum,
            void *packed, int threads)
{
    struct pack p = {format, outputs, inputs, data, scale, minimum, packed};
    fd_parallel_for(threads, fd_stride(outputs) / FD_LANES, FD_TASK_TILES, pack_range, &p);
    return FD_OK;
}

/* The only way to a kernel of the selected level: in the IEEE modes, whatever mode the caller is in, which comes back afterwards. */
static inline void leave_ieee_mode(const unsigned *mode) { fd_float_mode_leave(*mode); }
#define FD_CALL(call) __extension__ ({ \
    __attribute__((cleanup(leave_ieee_mode))) const unsigned callers_mode = fd_float_mode_enter(); \
    fd_selected_kernels()->call; \
})
#define FD_KERNEL(type, name, parameters, names) type fd_##name parameters { return FD_CALL(name names); }
#define FD_TRANSPORT_KERNEL(type, name, parameters, names) type fd_##name parameters { return FD_CALL(transport->name names); }
#include "kernels.h"

/* ---- how much memory a kernel wants ---- */
int64_t fd_sample_workspace(int64_t vocab)                                   /* struct sample_space in kernels/sample.c */
{
    int64_t padded = fd_pad(vocab, FD_CHUNK), floats = 4 * padded + padded / 16 + padded / 32;
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
int64_t fd_verify_tree_workspace(int rule, int64_t nodes, int64_t vocab)    /* verify_space in kernels/verify_tree.c */
{
    return verify_head_bytes(rule, nodes) + verify_slots(rule, nodes) * verify_slot_bytes(vocab);
}

