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

/* The memory of a pool of n-grams (kernels/fixed_point/ngram_pool.c): a header, heads of buckets, nodes, tokens.  All zeros, it is empty. */
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

/* The only way from Python to a kernel: whatever mode the caller is in comes back afterwards. */
static inline void fd_leave_ieee_mode(const unsigned *mode) { fd_float_mode_leave(*mode); }
#define FD_IEEE(call) __extension__ ({ \
    __attribute__((cleanup(fd_leave_ieee_mode), unused)) const unsigned callers_mode = fd_float_mode_enter(); \
    call; \
})

void *fd_malloc(size_t bytes);              /* counted: see fd_allocations */

/* A level's kernels; those of transport are a unit of their own. */
struct fd_transport_kernels {
#define FD_TRANSPORT_KERNEL(type, name, parameters, names) type (*name) parameters;
#include "kernels.h"
};
struct fd_kernels {
    const char *name;
    const struct fd_transport_kernels *transport;
    const char *product[FD_Q4 + 1];         /* of each weight format: how rows are multiplied by it, */
    int row_tile;                           /* this many at a time */
#define FD_KERNEL(type, name, parameters, names) type (*name) parameters;
#include "kernels.h"
    int64_t (*op_tasks)(const struct fd_op *op, const struct fd_pass *pass);
    int (*op_ahead)(const struct fd_op *op, int64_t task, int64_t step);                  /* 0: nothing more to prefetch */
    int64_t (*op_run)(const struct fd_op *op, const struct fd_pass *pass, int64_t task);   /* -1, or a row that is not finite */
};
const struct fd_kernels *fd_selected_kernels(void);
#endif
