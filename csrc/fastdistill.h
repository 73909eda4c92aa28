/* fastdistill.h - every C symbol that Python may call, with the shape of every pointer.  cffi reads this same file.
 *
 * C trusts shapes (Python has checked them) and reports only what reading the data reveals.
 */
#ifndef FASTDISTILL_H
#define FASTDISTILL_H
#include <stdint.h>

enum fd_status { FD_OK, FD_NOT_FINITE, FD_NO_MEMORY, FD_NOTHING_ALLOWED };

/* ---- instruction sets: levels are numbered from 0, worst first ---- */
int fd_isa_count(void);
const char *fd_isa_name(int level);
int fd_isa_supported(int level);
int fd_isa_selected(void);
void fd_isa_select(int level);              /* the caller has asked fd_isa_supported */
int fd_isa_shares_code(int level, int other);   /* whether a kernel of one is also the other's */

/* ---- threads ---- */
int fd_threads_limit(void);                 /* how many threads a job may ask for */
int64_t fd_allocations(void);               /* how often C has called malloc since the process began */

/* ---- weights: tiles of 16 outputs, inputs in sequence (csrc/kernels/pack.c) ---- */
enum fd_format { FD_F32, FD_F16, FD_BF16, FD_Q8, FD_Q4 };
struct fd_weight {
    int32_t format;                         /* enum fd_format */
    int64_t outputs, inputs;                /* logical sizes */
    const void *packed;                     /* fd_packed_bytes(format, outputs, inputs), 64-byte aligned */
    const float *bias;                      /* (outputs rounded up to 32,), zeros at the end; or NULL */
};
/* What multiplies rows by such weights at the selected level, in words -> text (size,).  Returns their length. */
int fd_kernel_name(int format, char *text, int size);
int64_t fd_packed_bytes(int format, int64_t outputs, int64_t inputs);
/* data (outputs, inputs) of the format's type, or codes (outputs, blocks * 32 or * 16); scale, minimum (outputs, blocks) */
int fd_pack(int format, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale, const uint16_t *minimum,
            void *packed, int threads);

/* ---- kernels ---- */
/* x (rows, width) -> codes (rows, blocks * 32), scale, sum, total (rows, blocks); blocks = ceil(width / 32).
 * sum = scale * total, total = the sum of the codes. */
int fd_quantize_rows(int64_t rows, int64_t width, const float *x, int8_t *codes, float *scale, float *sum, int32_t *total);
/* x (rows, inputs) -> y (rows, outputs) */
int fd_linear(const struct fd_weight *weight, int64_t rows, const float *x, float *y, int threads);
/* logits (rows, vocab), vocab < 2^31 -> argmax, top, second, log_sum_exp, entropy, log_prob of argmax, each (rows,) */
int fd_row_statistics(int64_t rows, int64_t vocab, const float *logits, int32_t *argmax, float *top, float *second,
                      float *log_sum_exp, float *entropy, float *log_prob, int threads);
/* out[i] = e^x[i], log x[i]: the functions every kernel uses */
int fd_exp_log(int bits, int64_t n, const void *x, void *exp_out, void *log_out);

/* ---- chance: everything random is a function of a key, a position and a token ---- */
/* Philox4x32-10: counter (n, 4), key (2,) -> words (n, 4) */
int fd_philox(int64_t n, const uint32_t *counter, const uint32_t *key, uint32_t *words);
struct fd_chance { uint64_t seed; uint32_t sequence, purpose, round, index; };   /* purpose < 2^3, round < 2^20, index < 2^12 */
/* positions (rows,) -> noise (rows, vocab), vocab < 2^31 */
int fd_gumbel_noise(int64_t rows, int64_t vocab, const int32_t *positions, const struct fd_chance *chance, float *noise);
struct fd_sampler {
    float temperature, top_p, min_p, repetition_penalty;     /* >= 0 (0: greedy), in (0, 1], in [0, 1], > 0; all finite */
    int64_t top_k;                                           /* 0: off */
    uint64_t seed;
    uint32_t sequence, round;                                /* round < 2^20 */
    int64_t biases;
    const int32_t *bias_tokens;                              /* (biases,) */
    const float *bias_values;                                /* (biases,) finite or -inf, a ban */
};
int64_t fd_sample_workspace(int64_t vocab);                  /* bytes a thread */
/* logits (rows, vocab), vocab < 2^23; positions (rows,); seen tokens of row i: seen[seen_offsets[i]] up to seen_offsets[i + 1], or
 * NULL; allowed (rows, ceil(vocab / 32)) bits or NULL; noise (rows, vocab), or NULL for Gumbel noise -> tokens (rows,);
 * workspace of min(threads, rows) pieces.  Returns the status of the first row at fault; tokens[i] is minus its status there. */
int fd_sample(int64_t rows, int64_t vocab, const float *logits, const int32_t *positions, const struct fd_sampler *sampler,
              const int32_t *seen, const int64_t *seen_offsets, const uint32_t *allowed, const float *noise, int32_t *tokens,
              void *workspace, int threads);
/* Likewise -> probabilities (rows, vocab); probabilities[i][0] is minus the status of a row at fault. */
int fd_probabilities(int64_t rows, int64_t vocab, const float *logits, const struct fd_sampler *sampler, const int32_t *seen,
                     const int64_t *seen_offsets, const uint32_t *allowed, float *probabilities, void *workspace, int threads);

/* ---- transport ---- */
enum fd_metric { FD_SQEUCLIDEAN, FD_EUCLIDEAN, FD_L1, FD_COSINE, FD_GIVEN };   /* given: costs, not points */
enum fd_transport_status {
    FD_NOT_BEGUN, FD_RUNNING, FD_CONVERGED, FD_MAX_ITERATIONS, FD_INFEASIBLE, FD_COST_NOT_FINITE, FD_EPSILON_TOO_SMALL
};
struct fd_transport {                       /* problems of one shape or smaller; a real is a float or a double */
    int32_t bits, metric;                   /* of a real: 32 or 64; enum fd_metric */
    int64_t n, m, d;
    const void *cost;                       /* (n, m) of reals, or NULL; this far from one problem to the next, 0: they share it: */
    const void *x, *y;                      /* (n, d), (m padded to 16 / 16, d, 16) of reals, or NULL */
    int64_t cost_step, x_step, y_step;
    const int64_t *sizes;                   /* (problems, 2): rows and columns that count */
    const double *a, *b;                    /* (problems, n), (problems, m): masses over their total, as reals hold them */
    double tau[2];                          /* of rows and columns; infinity: balanced */
    const double *constants;                /* (problems, 4): epsilon, tolerance over a's total, log of b's total, b's total over a's */
    const int64_t *max_iterations;          /* (problems,) */
    int64_t most_iterations;                /* the largest of them */
    double *phi, *gamma;                    /* (problems, n), (problems, m): potentials over epsilon; gamma: the start */
    double *errors;                         /* (problems, most_iterations) over a's total, or NULL */
    double *results;                        /* (problems, 5): value over a's total, dual of rows, of columns, mass, marginal error */
    int64_t *iterations;                    /* (problems,) */
    int32_t *status;                        /* (problems,) enum fd_transport_status; FD_NOT_BEGUN at first, or settled */
};
int64_t fd_sinkhorn_workspace(const struct fd_transport *transport, int64_t count, int threads);    /* bytes */
/* Goes on with problems first .. first + count for so long, in the workspace of these.  Returns how many are left to go on with.
 * Threads share the rows of one problem, or several problems. */
int64_t fd_sinkhorn(const struct fd_transport *transport, int64_t first, int64_t count, void *workspace, int64_t nanoseconds, int threads);
/* Rows first .. first + count of one problem's plan times scale.  FD_PLAN -> out (count, m).  FD_PRODUCT: values (width, m padded to 16)
 * -> out (count, width), the sums over columns of plan times value.  FD_GRADIENT -> out (count, d): the plan's sums of the derivatives
 * of the distances by x; of cosine minus the plan's sums of y. */
enum fd_transport_rows { FD_PLAN, FD_PRODUCT, FD_GRADIENT };
int64_t fd_transport_rows_workspace(const struct fd_transport *transport, int threads);             /* bytes */
void fd_transport_rows(const struct fd_transport *transport, int64_t problem, int64_t first, int64_t count, int kind, double scale,
                       int64_t width, const void *values, void *out, void *workspace, int threads);

/* ---- transport; `bits` says what real is: float (32) or double (64) ---- */
/* logits (rows, width) -> probabilities (rows, width), of logits / temperature */
int fd_softmax(int bits, int64_t rows, int64_t width, double temperature, const void *logits, void *probabilities, int threads);
/* probabilities, gradient (rows, width): gradient by the probabilities becomes gradient by the logits, times scale */
void fd_softmax_gradient(int bits, int64_t rows, int64_t width, double scale, const void *probabilities, void *gradient, int threads);
/* x (rows, d) -> unit (rows, d) of length 1, lengths (rows,): not finite where x is not; 0 where x is, and unit then */
void fd_unit_rows(int bits, int64_t rows, int64_t d, const void *x, void *unit, double *lengths, int threads);
/* x (batch, n, d), y (batch, m, d) -> distances (batch, n, m); n, m, d >= 1.  Cosine: of points of length 1. */
int64_t fd_pairwise_distance_workspace(int bits, int64_t batch, int64_t n, int64_t m, int64_t d);       /* bytes */
int fd_pairwise_distance(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *x, const void *y,
                         void *distances, void *workspace, int threads);
/* weights (batch, n, m), x (batch, n, d), y (batch, m, d) -> gradient (batch, n, d).  Euclidean: of weights that were divided by the
 * distances.  Cosine: of points of length 1, lengths (batch, n) what they were; NULL for other metrics. */
int64_t fd_distance_gradient_workspace(int bits, int64_t batch, int64_t m, int64_t d);                  /* bytes */
int fd_distance_gradient(int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *weights, const void *x,
                         const void *y, const double *lengths, void *gradient, void *workspace, int threads);
struct fd_unrolled {
    int64_t batch, n, m, iterations;
    double epsilon;
    const double *cost;                     /* (batch, n, m) */
    double *value, *plan, *gradient;        /* (batch,), (batch, n, m), (batch, n, m) */
    double *workspace;                      /* fd_unrolled_sinkhorn_workspace doubles, the same for all steps */
};
int64_t fd_unrolled_sinkhorn_workspace(int64_t batch, int64_t n, int64_t m, int64_t iterations);        /* doubles */
int64_t fd_unrolled_sinkhorn_steps(int64_t iterations);                     /* to be run in order, in any number of calls */
void fd_unrolled_sinkhorn(const struct fd_unrolled *problem, int64_t begin, int64_t end, int threads);

/* ---- drafts ---- */
/* tokens (n,), n < 2^31 -> starts, lengths, each (count,); returns how many of them were found and filled, the best first */
int64_t fd_find_matches(int64_t n, const int32_t *tokens, int64_t max_match, int64_t min_match, int64_t count, int32_t *starts,
                        int32_t *lengths);
enum { FD_NGRAM = 64 };                     /* the most tokens of an n-gram */
struct fd_ngram_pool {                      /* one caller at a time */
    int64_t ngram, capacity, per_key, key;  /* 1 <= key < ngram <= FD_NGRAM, 1 <= capacity <= 2^24, 1 <= per_key */
    void *memory;                           /* fd_ngram_pool_bytes of them, on 4 bytes; zeros are an empty pool */
};
int64_t fd_ngram_pool_bytes(int64_t ngram, int64_t capacity);
int64_t fd_ngram_pool_count(const struct fd_ngram_pool *pool);              /* n-grams in it */
void fd_ngram_pool_clear(const struct fd_ngram_pool *pool);
/* Every window of `ngram` tokens of each row; tokens (rows, n). */
void fd_ngram_pool_insert(const struct fd_ngram_pool *pool, int64_t rows, int64_t n, const int32_t *tokens);
/* key (key,) -> continuations (count, ngram - key); returns how many were found and filled, the newest first. */
int64_t fd_ngram_pool_lookup(const struct fd_ngram_pool *pool, const int32_t *key, int64_t count, int32_t *continuations);

/* ---- verification of drafts ---- */
/* p, q (vocab,) -> r (vocab,) = max(a p - q, 0), a rounded to float, apart from p and q; mass (1,) the sum of r */
int fd_residual_distribution(int64_t vocab, double a, const float *p, const float *q, float *r, double *mass);
enum fd_rule { FD_COUPLED, FD_REJECTION, FD_TRAVERSAL, FD_TYPICAL };
struct fd_verifier {
    int32_t rule, chain, replacement;                        /* chain: every tree has to be one */
    float scale, exponent;                                   /* of rejection: a probability p counts as scale p, or as p^exponent */
    double epsilon, delta;                                   /* of typical */
};
/* What a tree, its laws and its uniforms may lack; beside enum fd_status. */
enum fd_verify_status { FD_NO_TREE = 100, FD_NO_CHAIN, FD_NO_TOKEN, FD_NO_ROW, FD_NO_CHANCE, FD_NO_LAW, FD_NO_MASS, FD_NOT_DRAWN,
                        FD_NO_UNIT };
int64_t fd_verify_tree_workspace(int rule, int64_t nodes, int64_t vocab);   /* bytes, for trees of up to so many nodes */
/* Tree t is nodes offsets[t] .. offsets[t + 1], at least one; parents, tokens, draft_rows, uniforms (nodes,); drawn (nodes,) for
 * FD_COUPLED, target (nodes, vocab) and uniforms for the others; drafts (rows, vocab), draft_rows NULL where all are -1.
 * -> path, emitted, verdicts (nodes,), accepted, bonus (trees,).  At fault: where (2,), a node, and a row of drafts or -1. */
int fd_verify_tree(int64_t trees, int64_t vocab, int64_t rows, const int64_t *offsets, const int32_t *parents,
                   const int32_t *tokens, const int32_t *drawn, const float *target, const float *drafts,
                   const int32_t *draft_rows, const double *uniforms, const struct fd_verifier *set, int32_t *path,
                   int32_t *emitted, int32_t *accepted, int32_t *bonus, int8_t *verdicts, void *workspace, int64_t *where);

/* ---- trees: parents stand before their children ---- */
/* parents (n,), node 0 the root -> depths (n,), ancestors (n, ceil(n / 64)) bits, leaves (n,), children (n - 1,) of node i from
 * child_offsets[i] on, child_offsets (n + 1,).  Returns the number of leaves, or -1 - i where the parent of node i is not before it. */
int64_t fd_tree_layout(int64_t n, const int32_t *parents, int32_t *depths, uint64_t *ancestors, int32_t *leaves,
                       int32_t *children, int32_t *child_offsets);
/* window (levels, columns), guess_tokens (guesses, length) -> tokens, parents, positions, each (rows,), row 0 the seed; cells (levels,
 * columns), branches (guesses, length): the rows of both.  Room for 1 + levels * columns + guesses * length < 2^31 rows, there and in the
 * work space first_child, next_sibling (rows,), which are NULL where no rows are to be merged.  Returns how many rows there are. */
int64_t fd_lookahead_layout(int64_t levels, int64_t columns, int64_t guesses, int64_t length, const int32_t *window,
                            const int32_t *guess_tokens, int32_t seed, int32_t *tokens, int32_t *parents, int32_t *positions,
                            int32_t *cells, int32_t *branches, int32_t *first_child, int32_t *next_sibling);
/* logits (frontier, vocab), frontier * vocab < 2^32; scores (frontier,) -> tokens, rows, expanded, each (count,), of which the first
 * `found` are filled, the best first; workspace (frontier * min(count, vocab) + count,) */
int fd_expand_tree(int64_t frontier, int64_t vocab, const float *logits, const float *scores, int64_t count, int32_t *tokens,
                   int32_t *rows, float *expanded, int64_t *found, uint64_t *workspace, int threads);
/* parents (n,), -1: of the seed; scores (n,) -> nodes, kept_parents, each (min(budget, n),); workspace (n + min(budget, n),).
 * Returns how many are kept, or -1 - i where the parent of node i is not before it. */
int64_t fd_build_tree(int64_t n, const int32_t *parents, const float *scores, int64_t budget, int32_t *nodes,
                      int32_t *kept_parents, uint64_t *workspace);

/* ---- fixed points: iterates of a triangular system, n < 2^31 tokens a row ---- */
/* previous, current (rows, n) -> prefix (rows,): how many leading positions of current are final */
void fd_fixed_point_prefix(int64_t rows, int64_t n, const int32_t *previous, const int32_t *current, int32_t *prefix);
/* iterate, drawn (rows, n), n >= 1: drawn[i] is what the model says after iterate[0 .. i] -> next, stationary (rows, n), prefix,
 * bonus, converged (rows,); stationary and converged are 0 or 1 */
void fd_jacobi_step(int64_t rows, int64_t n, const int32_t *iterate, const int32_t *drawn, int32_t *next, int32_t *prefix,
                    int8_t *stationary, int32_t *bonus, int8_t *converged);

/* ---- masked diffusion: texts of n < 2^31 positions, masked where they hold the mask token ---- */
/* states, tokens, scores (branches, n), 1 <= branches <= 1 + count; steps (count, 3), each start, end, quota -> drafted (drafts, n), of
 * which min(drafts, count - accepted) are filled; workspace (n,).  Returns accepted; or -1 - i where step i does not fit; or
 * -1 - count - i where element i of tokens is the mask token and a step would commit it. */
int64_t fd_draft_and_verify(int64_t branches, int64_t n, int64_t count, const int32_t *states, const int32_t *tokens,
                            const float *scores, const int32_t *steps, int32_t mask_token, int64_t drafts, int32_t *drafted,
                            uint64_t *workspace);
enum fd_unmask_score { FD_CONFIDENCE, FD_MARGIN, FD_ENTROPY };              /* log_prob; e^(top - log_sum_exp) - e^(second - ..); -entropy */
struct fd_unmask_rule {
    int32_t score;                          /* enum fd_unmask_score, unless scores are given */
    float threshold;                        /* the least score that passes; -inf: any */
    double budget;                          /* the most that entropies of one step sum to, the largest aside; below 0: off */
    int64_t least, most, explore;
};
/* masked, statistics as the score, the budget and explore need them, given, bias, also, each (rows, n) or NULL; quota (rows,) or NULL;
 * bounds (n,) or NULL: what the score of rank k must exceed -> chosen, ranks, confidence (rows, n), count (rows,); chosen is 0 or 1;
 * workspace (rows, n) */
void fd_unmask_select(int64_t rows, int64_t n, const int8_t *masked, const float *top, const float *second,
                      const float *log_sum_exp, const float *entropy, const float *log_prob, const float *given, const float *bias, const int8_t *also,
                      const int32_t *quota, const float *bounds, const struct fd_unmask_rule *rule, int8_t *chosen, int32_t *count,
                      int32_t *ranks, float *confidence, uint64_t *workspace, int threads);

/* ---- a forward pass: a list of ops over the rows of one or several sequences ---- */
enum fd_op_kind {
    FD_OP_EMBED,                            /* tokens, or the pass's input rows -> out[0] */
    FD_OP_RMS_NORM,                         /* in1 / sqrt(mean(in1^2) + scalar) * vector -> out[0] and, where given, codes_out */
    FD_OP_QUANTIZE,                         /* in1 -> codes_out */
    FD_OP_LINEAR,                           /* weights[0..parts) over in1 or codes_in -> out[...]; `epilogue` */
    FD_OP_ADD,                              /* in1 + in2 -> out[0] */
    FD_OP_SILU_MUL,                         /* silu(in1) * in2 -> out[0] */
    FD_OP_ROTARY_TABLE,                     /* positions, vector = inverse frequencies -> cos out[0], sin out[1] */
    FD_OP_ROTARY,                           /* in1, heads; cos in2, sin in3 -> out[0] */
    FD_OP_STORE,                            /* keys in1, values in2 -> the caches, layer `layer` */
    FD_OP_ATTEND,                           /* queries in1 over the caches -> out[0], or partial results where split */
    FD_OP_ATTEND_MERGE,                     /* partial results -> out[0] */
    FD_OP_READ,                             /* the rows that are read, of in1 -> out[0] */
    FD_OP_HEAD,                             /* weights[0] over in1 or codes_in -> partial statistics, logits where asked */
    FD_OP_HEAD_MERGE,                       /* partial statistics -> statistics, drawn tokens; in1 or codes_in as the head's */
    FD_OP_COPY                              /* in1 -> out[0]: a tap */
};
enum fd_epilogue { FD_STORE_ONLY, FD_RESIDUAL, FD_GATED };   /* out = y; out = in2 + y; out = silu(y0) * y1 */
struct fd_codes { int8_t *codes; float *scale; float *sum; int32_t *total; };
struct fd_op {
    int32_t kind, read_rows;                /* read_rows: runs over the rows that are read, not over all */
    int32_t epilogue, parts;
    int64_t width, layer;                   /* floats a row of in1, without padding */
    int64_t heads, kv_heads, head_dim;
    float scalar;
    const float *vector;
    const struct fd_weight *weights[3];
    const float *in1, *in2, *in3;
    float *out[3];
    struct fd_codes codes_in, codes_out;
};
struct fd_cache {                           /* one sequence's keys and values */
    void *base;                             /* [layer][k, v][kv_head] of planes of f16 or f32, padded = head_dim rounded up to 16:
                                             * keys [capacity / 16][padded][16 slots], values [capacity][padded] */
    int64_t capacity;                       /* slots, a multiple of 16 */
    int32_t is_f32;
};
struct fd_draw {                            /* what the head draws a token of one row with */
    uint64_t seed;
    uint64_t reached;                       /* 0; written to meanwhile */
    uint32_t sequence, round;
    float temperature;                      /* 0: nothing is drawn */
};
struct fd_pass {
    int64_t rows;
    const int32_t *tokens;                  /* (rows,), or NULL when `inputs` is given */
    const float *inputs;                    /* (rows, width) */
    const int32_t *positions, *sequences, *slots, *nodes;   /* (rows,) */
    const struct fd_cache *caches;          /* (sequences,) */
    const int32_t *runs;                    /* visible slots of node g, in position order: runs of (start, length) ... */
    const int64_t *run_offsets;             /* ... number run_offsets[g] .. run_offsets[g + 1]; (nodes + 1,) */
    const int64_t *key_counts;              /* (nodes,) the total length of its runs */
    int64_t most_keys;                      /* the largest of them */
    int64_t reads;
    const int32_t *read_rows;               /* (reads,) */
    const int32_t *wanted_tokens;           /* (reads,) tokens whose log probability is wanted; or NULL */
    const int32_t *banned;                  /* tokens whose logits are -inf: of each row banned[bans[row][0]] up to bans[row][1], ... */
    const int64_t *bans;                    /* ... ascending; (reads, 2) or NULL */
    struct fd_draw *draws;                  /* (reads,) or NULL: tokens that the head draws, as fd_sample would -> ... */
    int32_t *drawn;                         /* ... (reads,) */
    float *logits;                          /* (reads, vocab) or NULL */
    int32_t *argmax;                        /* statistics, each (reads,) */
    float *top, *second, *log_sum_exp, *entropy, *log_prob, *wanted_log_prob;
    float *partial_statistics;              /* fd_statistics_floats(vocab) a read row */
    float *partial_attention;               /* for rows split over keys; split_tiles tiles for each of FD_SPLIT_ROWS rows */
    int64_t split_tiles;
};
int64_t fd_statistics_floats(int64_t vocab);
int64_t fd_attention_floats(int64_t heads, int64_t head_dim, int64_t tiles);   /* of partial_attention */
int64_t fd_attention_tiles(int64_t keys);
/* Stage s is ops stages[s] .. stages[s + 1], s < count.  Returns a status; `where` is then the op and the row.
 * clock (count + 1,): steady nanoseconds at which each stage began and the last one ended; or NULL. */
int fd_forward(const struct fd_op *ops, const int64_t *stages, int64_t count, const struct fd_pass *pass, int threads,
               int64_t *where, int64_t *clock);
#endif
