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

int fd_quantize_rows(int64_t rows, int64_t width, const float *x, int8_t *codes, float *scale, float *sum, int32_t *total)
{
    return FD_CALL(quantize_rows(rows, width, x, codes, scale, sum, total));
}
int fd_linear(const struct fd_weight *weight, int64_t rows, const float *x, float *y, int threads)
{
    return FD_CALL(linear(weight, rows, x, y, threads));
}
int fd_row_statistics(int64_t rows, int64_t vocab, const float *logits, int32_t *argmax, float *top, float *second,
                      float *log_sum_exp, float *entropy, float *log_prob, int threads)
{
    return FD_CALL(row_statistics(rows, vocab, logits, argmax, top, second, log_sum_exp, entropy, log_prob, threads));
}
int fd_exp_log(int bits, int64_t n, const void *x, void *exp_out, void *log_out)
{
    FD_CALL(exp_log(bits, n, x, exp_out, log_out));
    return FD_OK;
}
int fd_philox(int64_t n, const uint32_t *counter, const uint32_t *key, uint32_t *words)
{
    FD_CALL(philox(n, counter, key, words));
    return FD_OK;
}
int fd_gumbel_noise(int64_t rows, int64_t vocab, const int32_t *positions, const struct fd_chance *chance, float *noise)
{
    FD_CALL(gumbel_noise(rows, vocab, positions, chance, noise));
    return FD_OK;
}
int64_t fd_sample_workspace(int64_t vocab)                                   /* struct sample_space in kernels/sample.c */
{
    int64_t padded = fd_pad(vocab, FD_CHUNK), floats = 4 * padded + padded / 16 + padded / 32;
    return FD_BUCKETS * (int64_t)sizeof(uint64_t) + floats * (int64_t)sizeof(float);
}
int fd_sample(int64_t rows, int64_t vocab, const float *logits, const int32_t *positions, const struct fd_sampler *sampler,
              const int32_t *seen, const int64_t *seen_offsets, const uint32_t *allowed, const float *noise, int32_t *tokens,
              void *workspace, int threads)
{
    return FD_CALL(sample(rows, vocab, logits, positions, sampler, seen, seen_offsets, allowed, noise, tokens, workspace, threads));
}
int fd_probabilities(int64_t rows, int64_t vocab, const float *logits, const struct fd_sampler *sampler, const int32_t *seen,
                     const int64_t *seen_offsets, const uint32_t *allowed, float *probabilities, void *workspace, int threads)
{
    return FD_CALL(probabilities(rows, vocab, logits, sampler, seen, seen_offsets, allowed, probabilities, workspace, threads));
}
int fd_softmax(int bits, int64_t rows, int64_t width, double temperature, const void *logits, void *probabilities, int threads)
{
    return FD_CALL(transport->softmax(bits, rows, width, temperature, logits, probabilities, threads));
}
void fd_softmax_gradient(int bits, int64_t rows, int64_t width, double scale, const void *probabilities, void *gradient, int threads)
{
    FD_CALL(transport->softmax_gradient(bits, rows, width, scale, probabilities, gradient, threads));
}
void fd_unit_rows(int bits, int64_t rows, int64_t d, const void *x, void *unit, double *lengths, int threads)
{
    FD_CALL(transport->unit_rows(bits, rows, d, x, unit, lengths, threads));
}
int64_t fd_pairwise_distance_workspace(int bits, int64_t batch, int64_t n, int64_t m, int64_t d)
{
    return batch * (d < FD_FEW_COORDINATES ? d * fd_pad(m, 16) : fd_ceil(d, FD_COORDINATES) * n * m) * (bits / 8);
}
int fd_pairwise_distance(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *x, const void *y,
                         void *distances, void *workspace, int threads)
{
    return FD_CALL(transport->pairwise_distance(bits, metric, batch, n, m, d, x, y, distances, workspace, threads));
}
int64_t fd_distance_gradient_workspace(int bits, int64_t batch, int64_t m, int64_t d)
{
    return d < FD_FEW_SLOPES ? batch * d * fd_pad(m, 16) * (bits / 8) : 0;
}
int fd_distance_gradient(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *weights, const void *x,
                         const void *y, const double *lengths, void *gradient, void *workspace, int threads)
{
    return FD_CALL(transport->distance_gradient(bits, metric, batch, n, m, d, weights, x, y, lengths, gradient, workspace, threads));
}
int64_t fd_unrolled_sinkhorn_workspace(int64_t batch, int64_t n, int64_t m, int64_t iterations)
{
    return batch * (2 * n * fd_pad(m, 16) + (iterations + 1) * unrolled_potentials(n, m));
}
int64_t fd_unrolled_sinkhorn_steps(int64_t iterations) { return unrolled_steps(iterations); }
void fd_unrolled_sinkhorn(const struct fd_unrolled *problem, int64_t begin, int64_t end, int threads)
{
    FD_CALL(transport->unrolled_sinkhorn(problem, begin, end, threads));
}
int64_t fd_find_matches(int64_t n, const int32_t *tokens, int64_t max_match, int64_t min_match, int64_t count, int32_t *starts,
                        int32_t *lengths)
{
    return FD_CALL(find_matches(n, tokens, max_match, min_match, count, starts, lengths));
}
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
void fd_ngram_pool_insert(const struct fd_ngram_pool *pool, int64_t rows, int64_t n, const int32_t *tokens)
{
    FD_CALL(ngram_pool_insert(pool, rows, n, tokens));
}
int64_t fd_ngram_pool_lookup(const struct fd_ngram_pool *pool, const int32_t *key, int64_t count, int32_t *continuations)
{
    return FD_CALL(ngram_pool_lookup(pool, key, count, continuations));
}
int fd_residual_distribution(int64_t vocab, double a, const float *p, const float *q, float *r, double *mass)
{
    return FD_CALL(residual_distribution(vocab, a, p, q, r, mass));
}
int64_t fd_tree_layout(int64_t n, const int32_t *parents, int32_t *depths, uint64_t *ancestors, int32_t *leaves,
                       int32_t *children, int32_t *child_offsets)
{
    return FD_CALL(tree_layout(n, parents, depths, ancestors, leaves, children, child_offsets));
}
int64_t fd_lookahead_layout(int64_t levels, int64_t columns, int64_t guesses, int64_t length, const int32_t *window,
                            const int32_t *guess_tokens, int32_t seed, int32_t *tokens, int32_t *parents, int32_t *positions,
                            int32_t *cells, int32_t *branches, int32_t *first_child, int32_t *next_sibling)
{
    return FD_CALL(lookahead_layout(levels, columns, guesses, length, window, guess_tokens, seed, tokens, parents, positions, cells,
                                        branches, first_child, next_sibling));
}
int fd_expand_tree(int64_t frontier, int64_t vocab, const float *logits, const float *scores, int64_t count, int32_t *tokens,
                   int32_t *rows, float *expanded, int64_t *found, uint64_t *workspace, int threads)
{
    return FD_CALL(expand_tree(frontier, vocab, logits, scores, count, tokens, rows, expanded, found, workspace, threads));
}
int64_t fd_build_tree(int64_t n, const int32_t *parents, const float *scores, int64_t budget, int32_t *nodes,
                      int32_t *kept_parents, uint64_t *workspace)
{
    return FD_CALL(build_tree(n, parents, scores, budget, nodes, kept_parents, workspace));
}
int64_t fd_verify_tree_workspace(int rule, int64_t nodes, int64_t vocab)    /* verify_space in kernels/verify_tree.c */
{
    return verify_head_bytes(rule, nodes) + verify_slots(rule, nodes) * verify_slot_bytes(vocab);
}
int fd_verify_tree(int64_t trees, int64_t vocab, int64_t rows, const int64_t *offsets, const int32_t *parents,
                   const int32_t *tokens, const int32_t *drawn, const float *target, const float *drafts,
                   const int32_t *draft_rows, const double *uniforms, const struct fd_verifier *set, int32_t *path,
                   int32_t *emitted, int32_t *accepted, int32_t *bonus, int8_t *verdicts, void *workspace, int64_t *where)
{
    return FD_CALL(verify_tree(trees, vocab, rows, offsets, parents, tokens, drawn, target, drafts, draft_rows, uniforms,
                                            set, path, emitted, accepted, bonus, verdicts, workspace, where));
}
void fd_fixed_point_prefix(int64_t rows, int64_t n, const int32_t *previous, const int32_t *current, int32_t *prefix)
{
    FD_CALL(fixed_point_prefix(rows, n, previous, current, prefix));
}
void fd_jacobi_step(int64_t rows, int64_t n, const int32_t *iterate, const int32_t *drawn, int32_t *next, int32_t *prefix,
                    int8_t *stationary, int32_t *bonus, int8_t *converged)
{
    FD_CALL(jacobi_step(rows, n, iterate, drawn, next, prefix, stationary, bonus, converged));
}
int64_t fd_draft_and_verify(int64_t branches, int64_t n, int64_t count, const int32_t *states, const int32_t *tokens,
                            const float *scores, const int32_t *steps, int32_t mask_token, int64_t drafts, int32_t *drafted,
                            uint64_t *workspace)
{
    return FD_CALL(draft_and_verify(branches, n, count, states, tokens, scores, steps, mask_token, drafts, drafted, workspace));
}
void fd_unmask_select(int64_t rows, int64_t n, const int8_t *masked, const float *top, const float *second,
                      const float *log_sum_exp, const float *entropy, const float *log_prob, const float *given, const float *bias, const int8_t *also,
                      const int32_t *quota, const float *bounds, const struct fd_unmask_rule *rule, int8_t *chosen, int32_t *count,
                      int32_t *ranks, float *confidence, uint64_t *workspace, int threads)
{
    FD_CALL(unmask_select(rows, n, masked, top, second, log_sum_exp, entropy, log_prob, given, bias, also, quota, bounds, rule, chosen,
                              count, ranks, confidence, workspace, threads));
}

int64_t fd_sinkhorn_workspace(const struct fd_transport *transport, int64_t count, int threads)
{
    return FD_CALL(transport->sinkhorn_workspace(transport, count, threads));
}
int64_t fd_sinkhorn(const struct fd_transport *transport, int64_t first, int64_t count, void *workspace, int64_t nanoseconds, int threads)
{
    return FD_CALL(transport->sinkhorn(transport, first, count, workspace, nanoseconds, threads));
}
int64_t fd_transport_rows_workspace(const struct fd_transport *transport, int threads)
{
    return FD_CALL(transport->transport_rows_workspace(transport, threads));
}
void fd_transport_rows(const struct fd_transport *transport, int64_t problem, int64_t first, int64_t count, int kind, double scale,
                       int64_t width, const void *values, void *out, void *workspace, int threads)
{
    FD_CALL(transport->transport_rows(transport, problem, first, count, kind, scale, width, values, out, workspace, threads));
}
