/* internal.h - what the C files share: the pool, the struct of kernels that each level fills, fixed tile sizes. */
#ifndef FD_INTERNAL_H
#define FD_INTERNAL_H
#include <float.h>
#include <stdatomic.h>
#include <stddef.h>
#include "fastdistill.h"

/* What every word and every file relies on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fastdistill is for little-endian CPUs");
_Static_assert(FLT_EVAL_METHOD == 0, "an operation must round to its type: on 32-bit x86, -msse2 -mfpmath=sse");
#if defined(__arm__) && defined(__clang__) && defined(__ARM_NEON)
#error "clang computes floats with 32-bit NEON, which flushes subnormal numbers: take gcc"
#endif

enum {
    FD_BLOCK = 32,          /* weights and activations that share one scale */
    FD_LANES = 16,          /* outputs of one tile */
    FD_TASK_TILES = 4,      /* tiles of one claimed piece of a linear */
    FD_AHEAD = 64,          /* KiB of weights that a thread fetches while it waits: well inside a second-level cache */
    FD_CHUNK = 256,         /* vocabulary entries of one piece of the head and of the statistics */
    FD_HEAD_ROWS = 32,      /* rows whose chunk of logits one thread holds at a time */
    FD_KEY_TILE = 128,      /* keys of one softmax tile */
    FD_SPLIT_ROWS = 4,      /* up to this many rows, attention is split over key tiles too */
    FD_PARTIAL = 8,         /* floats of one chunk's statistics */
    FD_BUCKETS = 2048       /* of a histogram of the sampler: 11 bits of 31, then 10, then 10 */
};
static inline int64_t fd_ceil(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
static inline int64_t fd_pad(int64_t n, int64_t unit) { return fd_ceil(n, unit) * unit; }
static inline int64_t fd_stride(int64_t width) { return fd_pad(width, FD_BLOCK); }   /* floats from row to row; the padding is 0 */
static inline int64_t fd_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* What is left of the law after a node, as far as children have been refused. */
struct verify_law {
    const float *row;                                  /* (vocab,) the target's, or `own` */
    float *own;                                        /* a slot, or NULL */
    double mass, weight;
    double left;                                       /* of the row that the child in question was drawn from */
    float factor;
    int64_t totalled;                                  /* a row of the drafts, and its sum; or -1 */
    double total;
    int32_t known;                                     /* the target's row is a law: it has been looked at */
    int32_t checked;                                   /* the row of the drafts last found to be a law; or -1 */
};
struct verify_node { struct verify_law law; int32_t child, sibling; };                   /* the next ones, or -1 */
/* Rows that verification holds at once: of each node on a path whose earlier child was refused, and of one being made. */
static inline int64_t verify_slots(int rule, int64_t nodes) { return rule == FD_TRAVERSAL ? nodes / 2 + 2 : 3; }
static inline int64_t verify_head_bytes(int rule, int64_t nodes)             /* nodes, and pointers to slots */
{
    return nodes * (int64_t)sizeof(struct verify_node) + fd_pad(verify_slots(rule, nodes) * (int64_t)sizeof(float *), sizeof(double));
}
static inline int64_t verify_slot_bytes(int64_t vocab) { return fd_pad(vocab, FD_CHUNK) * 4 + fd_ceil(vocab, FD_CHUNK) * 8; }

/* Points of few coordinates have points in the lanes, others coordinates: shape decides alone.  Of a gradient a sum of 16 lanes is wanted
 * for each coordinate of a point, of distances for each pair: where points pay differs. */
enum {
    FD_FEW_COORDINATES = 64,
    FD_FEW_SLOPES = 16,
    FD_COORDINATES = 512,   /* of one piece of a distance: 64 rows of x and of y of them lie in a second-level cache */
    FD_POINTS = 64,
    FD_COLUMNS = 256        /* points in the lanes of one piece */
};
static inline int64_t unrolled_potentials(int64_t n, int64_t m) { return fd_pad(n, 16) + fd_pad(m, 16); }
static inline int64_t unrolled_steps(int64_t iterations) { return 4 * iterations + 3; }

/* The memory of a pool of n-grams (kernels/ngram_pool.c): a header, heads of buckets, nodes, tokens.  All zeros, it is empty. */
struct ngram_header {
    int32_t count;                      /* n-grams */
    int32_t used[2], free[2];           /* of n-grams and of keys: nodes ever used, and the first of those free again, or 0 */
};
struct ngram_node {
    struct { int32_t newer, older; } ring[2];
    int32_t next;                       /* of its bucket, or of the free ones; 0: none */
    uint32_t bucket;
    union { int32_t owner, count; };    /* an n-gram's key; how many n-grams a key has */
};
static inline int64_t ngram_nodes(int64_t capacity) { return 2 * capacity + 3; }
static inline int64_t ngram_buckets(int64_t capacity)                /* a power of two, one for each n-gram and each key */
{
    int64_t buckets = 2;
    while (buckets < 2 * capacity) buckets *= 2;
    return buckets;
}

/* A stage is `tasks` independent pieces, fewer than 2^56; the next one starts when all are done. */
typedef void fd_stage_fn(void *context, int64_t stage, int64_t task);
typedef int64_t fd_stage_tasks_fn(void *context, int64_t stage);
/* Share `share` of a stage's tasks begins here. */
static inline int64_t fd_share(int64_t tasks, int64_t share, int64_t shares) { return tasks * share / shares; }
/* Called over and over, step 0, 1, ..., by a thread that waits for a stage to end; 0: there is nothing more to do. */
typedef int fd_stage_ahead_fn(void *context, int64_t stage, int thread, int threads, int64_t step);
void fd_run_stages(int threads, int64_t stages, fd_stage_tasks_fn *tasks, fd_stage_fn *run, fd_stage_ahead_fn *ahead, void *context);
/* One stage: cuts [0, items) into pieces of `grain`, a number fixed by shape. */
typedef void fd_range_fn(void *context, int64_t begin, int64_t end);
void fd_parallel_for(int threads, int64_t items, int64_t grain, fd_range_fn *run, void *context);

/* Rounding and denormals as IEEE 754 has them, whatever another library has set in this thread: between the two calls. */
#if defined(__x86_64__)
#include <xmmintrin.h>
static inline unsigned fd_float_mode_enter(void)
{
    unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return mode;
}
static inline void fd_float_mode_leave(unsigned mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
static inline unsigned fd_float_mode_enter(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return (unsigned)mode;
}
static inline void fd_float_mode_leave(unsigned mode) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode)); }
#elif defined(__arm__) && defined(__ARM_FP)
static inline unsigned fd_float_mode_enter(void)
{
    unsigned mode;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(mode));
    __asm__ volatile("vmsr fpscr, %0" : : "r"(0));
    return mode;
}
static inline void fd_float_mode_leave(unsigned mode) { __asm__ volatile("vmsr fpscr, %0" : : "r"(mode)); }
#else
static inline unsigned fd_float_mode_enter(void) { return 0; }
static inline void fd_float_mode_leave(unsigned mode) { (void)mode; }
#endif

void *fd_malloc(size_t bytes);              /* counted: see fd_allocations */

struct fd_transport_kernels {
    int (*softmax)(int bits, int64_t rows, int64_t width, double temperature, const void *logits, void *probabilities, int threads);
    void (*softmax_gradient)(int bits, int64_t rows, int64_t width, double scale, const void *probabilities, void *gradient,
                             int threads);
    void (*unit_rows)(int bits, int64_t rows, int64_t d, const void *x, void *unit, double *lengths, int threads);
    int (*pairwise_distance)(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *x, const void *y,
                             void *distances, void *workspace, int threads);
    int (*distance_gradient)(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *weights, const void *x,
                             const void *y, const double *lengths, void *gradient, void *workspace, int threads);
    void (*unrolled_sinkhorn)(const struct fd_unrolled *problem, int64_t begin, int64_t end, int threads);
    int64_t (*sinkhorn_workspace)(const struct fd_transport *transport, int64_t count, int threads);
    int64_t (*sinkhorn)(const struct fd_transport *transport, int64_t first, int64_t count, char *workspace, int64_t nanoseconds,
                        int threads);
    int64_t (*transport_rows_workspace)(const struct fd_transport *transport, int threads);
    void (*transport_rows)(const struct fd_transport *transport, int64_t index, int64_t first, int64_t count, int kind, double scale,
                           int64_t width, const void *values, void *out, char *workspace, int threads);
};
struct fd_kernels {
    const char *name;
    const struct fd_transport_kernels *transport;
    const char *product[FD_Q4 + 1];         /* of each weight format: how rows are multiplied by it, */
    int row_tile;                           /* this many at a time */
    void (*pack_rows)(int format, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale,
                      const uint16_t *minimum, void *packed, int64_t tile_begin, int64_t tile_end);
    int (*quantize_rows)(int64_t rows, int64_t width, const float *x, int8_t *codes, float *scale, float *sum, int32_t *total);
    int (*row_statistics)(int64_t rows, int64_t vocab, const float *logits, int32_t *argmax, float *top, float *second,
                          float *log_sum_exp, float *entropy, float *log_prob, int threads);
    int (*linear)(const struct fd_weight *weight, int64_t rows, const float *x, float *y, int threads);
    void (*exp_log)(int bits, int64_t n, const void *x, void *exp_out, void *log_out);
    void (*philox)(int64_t n, const uint32_t *counter, const uint32_t *key, uint32_t *words);
    void (*gumbel_noise)(int64_t rows, int64_t vocab, const int32_t *positions, const struct fd_chance *chance, float *noise);
    int (*sample)(int64_t rows, int64_t vocab, const float *logits, const int32_t *positions, const struct fd_sampler *sampler,
                  const int32_t *seen, const int64_t *seen_offsets, const uint32_t *allowed, const float *noise, int32_t *tokens,
                  void *workspace, int threads);
    int (*probabilities)(int64_t rows, int64_t vocab, const float *logits, const struct fd_sampler *sampler, const int32_t *seen,
                         const int64_t *seen_offsets, const uint32_t *allowed, float *probabilities, void *workspace, int threads);
    int64_t (*find_matches)(int64_t n, const int32_t *tokens, int64_t max_match, int64_t min_match, int64_t count, int32_t *starts,
                            int32_t *lengths);
    void (*ngram_pool_insert)(const struct fd_ngram_pool *pool, int64_t rows, int64_t n, const int32_t *tokens);
    int64_t (*ngram_pool_lookup)(const struct fd_ngram_pool *pool, const int32_t *key, int64_t count, int32_t *continuations);
    int (*residual_distribution)(int64_t vocab, double a, const float *p, const float *q, float *r, double *mass);
    int64_t (*tree_layout)(int64_t n, const int32_t *parents, int32_t *depths, uint64_t *ancestors, int32_t *leaves,
                           int32_t *children, int32_t *child_offsets);
    int64_t (*lookahead_layout)(int64_t levels, int64_t columns, int64_t guesses, int64_t length, const int32_t *window,
                                const int32_t *guess_tokens, int32_t seed, int32_t *tokens, int32_t *parents, int32_t *positions,
                                int32_t *cells, int32_t *branches, int32_t *first_child, int32_t *next_sibling);
    int (*expand_tree)(int64_t frontier, int64_t vocab, const float *logits, const float *scores, int64_t count, int32_t *tokens,
                       int32_t *rows, float *expanded, int64_t *found, uint64_t *workspace, int threads);
    int64_t (*build_tree)(int64_t n, const int32_t *parents, const float *scores, int64_t budget, int32_t *nodes,
                          int32_t *kept_parents, uint64_t *workspace);
    int (*verify_tree)(int64_t trees, int64_t vocab, int64_t rows, const int64_t *offsets, const int32_t *parents,
                       const int32_t *tokens, const int32_t *drawn, const float *target, const float *drafts,
                       const int32_t *draft_rows, const double *uniforms, const struct fd_verifier *set, int32_t *path,
                       int32_t *emitted, int32_t *accepted, int32_t *bonus, int8_t *verdicts, void *workspace, int64_t *where);
    void (*fixed_point_prefix)(int64_t rows, int64_t n, const int32_t *previous, const int32_t *current, int32_t *prefix);
    void (*jacobi_step)(int64_t rows, int64_t n, const int32_t *iterate, const int32_t *drawn, int32_t *next, int32_t *prefix,
                        int8_t *stationary, int32_t *bonus, int8_t *converged);
    int64_t (*draft_and_verify)(int64_t branches, int64_t n, int64_t count, const int32_t *states, const int32_t *tokens,
                                const float *scores, const int32_t *steps, int32_t mask_token, int64_t drafts, int32_t *drafted,
                                uint64_t *workspace);
    void (*unmask_select)(int64_t rows, int64_t n, const int8_t *masked, const float *top, const float *second,
                          const float *log_sum_exp, const float *entropy, const float *log_prob, const float *given, const float *bias, const int8_t *also,
                          const int32_t *quota, const float *bounds, const struct fd_unmask_rule *rule, int8_t *chosen, int32_t *count,
                          int32_t *ranks, float *confidence, uint64_t *workspace, int threads);
    int64_t (*op_tasks)(const struct fd_op *op, const struct fd_pass *pass);
    int (*op_ahead)(const struct fd_op *op, int64_t task, int64_t step);                  /* 0: nothing more to prefetch */
    int64_t (*op_run)(const struct fd_op *op, const struct fd_pass *pass, int64_t task);   /* -1, or a row that is not finite */
};
const struct fd_kernels *fd_selected_kernels(void);
#endif
