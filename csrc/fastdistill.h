/* fastdistill.h - every C symbol that Python may call, with the shape of every pointer; of kernels, kernels.h.  cffi reads these same files.
 *
 * C trusts shapes (Python has checked them) and reports only what reading the data reveals.
 */
#pragma once
#include <stdint.h>

enum fd_status { FD_OK, FD_NOT_FINITE, FD_NO_MEMORY, FD_NOTHING_ALLOWED, FD_OTHER_LAYOUT };    /* the last: see enum fd_layout */

/* ---- instruction sets: levels are numbered from 0, worst first ---- */
int fd_isa_count(void);
const char *fd_isa_name(int level);
int fd_isa_supported(int level);
int fd_isa_selected(void);
void fd_isa_select(int level);              /* the caller has asked fd_isa_supported */
int fd_isa_layout(int level);               /* enum fd_layout of the weights that it reads */
int fd_isa_shares_code(int level, int other);   /* whether a kernel of one is also the other's */

/* ---- threads ---- */
int fd_threads_limit(void);                 /* how many threads a job may ask for */
int64_t fd_allocations(void);               /* how often C has called malloc since the process began */
void fd_return_memory(void);                /* what malloc holds and nobody uses goes back to the system, where it can be told to */

/* ---- weights: tiles of 16 outputs (csrc/kernels/forward/packed.h) ---- */
enum fd_format { FD_F32, FD_F16, FD_BF16, FD_Q8, FD_Q4 };
enum fd_layout { FD_16X4, FD_8X8 };         /* of the codes of q8 and q4; a level reads one */
struct fd_weight {
    int32_t format, layout;                 /* enum fd_format, enum fd_layout */
    int64_t outputs, inputs;                /* logical sizes */
    const void *packed;                     /* fd_packed_bytes(format, outputs, inputs), 64-byte aligned */
    const float *bias;                      /* (outputs rounded up to 32,), zeros at the end; or NULL */
};
/* What multiplies rows by such weights at the selected level, in words -> text (size,).  Returns their length. */
int fd_kernel_name(int format, char *text, int size);
int64_t fd_packed_bytes(int format, int64_t outputs, int64_t inputs);
/* data (outputs, inputs) of the format's type, or codes (outputs, blocks * 32 or * 16); scale, minimum (outputs, blocks) */
int fd_pack(int format, int layout, int64_t outputs, int64_t inputs, const void *data, const uint16_t *scale,
            const uint16_t *minimum, void *packed, int threads);

/* ---- chance ---- */
struct fd_chance { uint64_t seed; uint32_t sequence, purpose, round, index; };   /* purpose < 2^3, round < 2^20, index < 2^12 */
struct fd_sampler {
    float temperature, top_p, min_p;                         /* >= 0 (0: greedy), in (0, 1], in [0, 1]; all finite */
    float repetition_penalty;                                /* > 0, finite; 1: off */
    float frequency_penalty, presence_penalty;               /* in [-2, 2]; 0: off; they leave out of what a row has seen */
    int64_t prompt_length;                                   /* so many tokens from the first */
    int64_t top_k;                                           /* 0: off */
    uint64_t seed;
    uint32_t sequence, round;                                /* round < 2^20 */
    int64_t biases;
    const int32_t *bias_tokens;                              /* (biases,) */
    const float *bias_values;                                /* (biases,) finite or -inf, a ban */
};

/* ---- transport ---- */
enum fd_metric { FD_SQEUCLIDEAN, FD_EUCLIDEAN, FD_L1, FD_COSINE, FD_GIVEN };   /* given: costs, not points */
enum fd_transport_status {
    FD_NOT_BEGUN, FD_RUNNING, FD_CONVERGED, FD_MAX_ITERATIONS, FD_INFEASIBLE, FD_COST_NOT_FINITE, FD_EPSILON_TOO_SMALL
};
struct fd_transport {                       /* problems of one shape or smaller; a real is a float or a double */
    int32_t bits, metric;                   /* of a real: 32 or 64; enum fd_metric */
    int64_t n, m, d;
    const void *cost;                       /* (n, m) of reals, or NULL where points are given */
    const void *x, *y;                      /* points: (n, d), (m padded to 16 / 16, d, 16) of reals, or NULL */
    int64_t cost_step, x_step, y_step;      /* reals from one problem's cost, x, y to the next one's; 0: all problems share it */
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
enum fd_transport_rows { FD_PLAN, FD_PRODUCT, FD_GRADIENT };
struct fd_unrolled {
    int64_t batch, n, m, iterations;
    double epsilon;
    const double *cost;                     /* (batch, n, m) */
    double *value, *plan, *gradient;        /* (batch,), (batch, n, m), (batch, n, m) */
    double *workspace;                      /* fd_unrolled_sinkhorn_workspace doubles, the same for all steps */
};

/* ---- divergences between laws, p the teacher's and q the student's ---- */
enum fd_divergence_kind {
    FD_FORWARD_KL, FD_REVERSE_KL, FD_MIXED_KL, FD_ADAPTIVE_KL, FD_JSD, FD_SKEW_KL, FD_SKEW_REVERSE_KL, FD_ALPHA_DIVERGENCE,
    FD_RENYI_DIVERGENCE, FD_TOTAL_VARIATION, FD_LOG_ACCEPTANCE, FD_ACCEPTANCE_HYBRID, FD_SOFT_CROSS_ENTROPY, FD_STUDENT_ENTROPY,
    FD_LOGIT_MSE, FD_PROBABILITY_MSE
};
enum fd_numbers { FD_NUMBERS_F32, FD_NUMBERS_F64, FD_NUMBERS_F16, FD_NUMBERS_BF16 };
struct fd_divergence {
    int32_t kind, bits;                     /* enum fd_divergence_kind; of a real that is computed with, and of the gradient: 32 or 64 */
    int32_t student_numbers, teacher_numbers;           /* enum fd_numbers */
    int32_t teacher_is_law;                 /* probabilities, not logits */
    double forward, reverse;                /* of the mixed one: what either divergence is multiplied by */
    double parameter;                       /* of other kinds */
    double temperature;
    double scale, label_scale;              /* what gradients by the divergence, by the cross entropy of a label are multiplied by */
};

struct fd_adamw {                           /* floats that were computed in doubles */
    float scale;                            /* of the gradient */
    float first_rate, second_rate;          /* 1 - beta1, 1 - beta2 */
    float step_size, root;                  /* learning rate / (1 - beta1^step), 1 / sqrt(1 - beta2^step) */
    float epsilon, decay;                   /* decay: learning rate * weight decay */
    int32_t zero_gradient;
};
struct fd_sgd {
    float scale;                            /* of the gradient */
    float momentum, learning_rate;
    float coupled_decay, decay;             /* of what is added to the gradient; learning rate * weight decay, of what is not */
    int32_t nesterov, zero_gradient;
};

struct fd_head_divergence {                       /* a divergence of logits hidden head^T, which are never there as a whole */
    struct fd_divergence set;               /* bits 32; not FD_ADAPTIVE_KL */
    int64_t rows, vocab, width;
    const float *hidden, *head;             /* (rows, width), (vocab, width) */
    const void *teacher;                    /* (.., vocab) of logits or laws, row i of the hidden ones its row index[i]; or NULL: those of */
    const int64_t *index;
    int64_t teacher_width;
    const float *teacher_hidden, *teacher_head;         /* (rows, teacher_width), (vocab, teacher_width); NULL: none; or */
    int64_t k;                              /* 0, or it is known at so many tokens of a row: as row_divergence_topk, tokens ascending */
    const int32_t *tokens;                  /* (rows, k) */
    const float *log_probs, *tail;          /* (rows, k), (rows,) or NULL */
    const int32_t *labels;                  /* (rows,), -1: none; or NULL */
    const double *weights;                  /* (rows,) */
    double *values, *label_values;          /* (rows,) */
    float *hidden_gradient, *head_gradient; /* (rows, width) of zeros, (vocab, width); or NULL */
};

/* ---- drafts ---- */
enum { FD_NGRAM = 64 };                     /* the most tokens of an n-gram */
struct fd_ngram_pool {                      /* one caller at a time */
    int64_t ngram, capacity, per_key, key;  /* 1 <= key < ngram <= FD_NGRAM, 1 <= capacity <= 2^24, 1 <= per_key */
    void *memory;                           /* fd_ngram_pool_bytes of them, on 4 bytes; zeros are an empty pool */
};
int64_t fd_ngram_pool_bytes(int64_t ngram, int64_t capacity);
int64_t fd_ngram_pool_count(const struct fd_ngram_pool *pool);              /* n-grams in it */
void fd_ngram_pool_clear(const struct fd_ngram_pool *pool);

/* ---- verification of drafts ---- */
enum fd_rule { FD_COUPLED, FD_REJECTION, FD_TRAVERSAL, FD_TYPICAL };
struct fd_verifier {
    int32_t rule, chain, replacement;                        /* chain: every tree has to be one */
    float scale, exponent;                                   /* of rejection: a probability p counts as scale p, or as p^exponent */
    double epsilon, delta;                                   /* of typical */
};
/* What a tree, its laws and its uniforms may lack; beside enum fd_status. */
enum fd_verify_status { FD_NO_TREE = 100, FD_NO_CHAIN, FD_NO_TOKEN, FD_NO_ROW, FD_NO_CHANCE, FD_NO_LAW, FD_NO_MASS, FD_NOT_DRAWN,
                        FD_NO_UNIT };

/* ---- masked diffusion ---- */
enum fd_unmask_score { FD_CONFIDENCE, FD_MARGIN, FD_ENTROPY };              /* log_prob; e^(top - log_sum_exp) - e^(second - ..); -entropy */
struct fd_unmask_rule {
    int32_t score;                          /* enum fd_unmask_score, unless scores are given */
    float threshold;                        /* the least score that passes; -inf: any */
    double budget;                          /* the most that entropies of one step sum to, the largest aside; below 0: off */
    int64_t least, most, explore;
};

/* ---- a forward pass: a list of ops over the rows of one or several sequences ---- */
#define FD_OP(name, tasks) FD_OP_##name,
enum fd_op_kind {
#include "ops.h"
};
#undef FD_OP
enum fd_epilogue { FD_STORE_ONLY, FD_RESIDUAL, FD_ACTIVATED, FD_GATED };   /* out = y, in[last] + y, activation(y), activation(y0) * y1 */
enum fd_activation { FD_NONE, FD_SILU, FD_GELU, FD_GELU_TANH, FD_RELU, FD_TANH };
enum { FD_GROUP = 4 };                       /* rows whose int8 forms lie together: */
struct fd_block {                           /* 32 inputs of each of them; row r, block b: lane r % 4 of [r / 4 * blocks + b] */
    int8_t codes[FD_GROUP][32];             /* row by row, or as the level wants them: block.h's block_store */
    float scale[FD_GROUP], sum[FD_GROUP];   /* sum: scale * total */
    int32_t total[FD_GROUP];                /* of the codes */
};
struct fd_op {
    int32_t kind, read_rows;                /* read_rows: runs over the rows that are read, not over all */
    int32_t epilogue, activation;           /* enum fd_epilogue, enum fd_activation */
    int32_t inputs, outputs, parts;
    int64_t width;                          /* floats a row of in[0], without padding */
    const float *const *in;                 /* (inputs,) values, */
    float *const *out;                      /* (outputs,) those that it makes, */
    const struct fd_weight *const *weights; /* (parts,) matrices, */
    const float *const *vectors;            /* weights and constants of one axis, or NULL; weights are padded with zeros to a multiple of 32 */
    int64_t heads, kv_heads, head_dim;      /* head_dim of a norm: what it norms at a time, or 0: the row; heads: that share a vector, or 0 */
    int64_t rotary_dim;                     /* the floats of a head, from its first, that are rotated */
    int64_t experts, top_k;                 /* how many there are, how many a row goes through */
    int64_t key_set, layer;                 /* of the pass's; where its layer begins in a page: numbers a slot of those before */
    int64_t window, ahead;                  /* positions that a row sees up to its own, beyond its own; or 0: any */
    int64_t reach;                          /* distances of keys from -reach to reach have numbers in vectors[0] (heads, 2 reach + 1); or 0 */
    int64_t first, columns;                 /* columns of in[0]: where they begin, how many; of tokens: which */
    float scalar, softcap;                  /* softcap: 0, or what bounds scores, or logits */
    struct fd_block *codes_in, *codes_out;  /* the int8 form of in[0]; of what it makes */
};
enum { FD_PAGE = 64 };                      /* slots of a page of a cache: a multiple of 16 */
struct fd_cache {                           /* one sequence's keys and values */
    void *const *pages;                     /* slot s lies in pages[s / FD_PAGE], as its slot s % FD_PAGE: */
    int32_t is_f32, is_long;                /* [layer][k, v][kv_head] of planes of f16 or f32, padded = head_dim rounded up to 16: */
    int64_t positions;                      /* keys [FD_PAGE / 16][padded][16 slots], values [FD_PAGE][padded]; and so many bytes from a */
};                                          /* page's beginning the positions, int32 (FD_PAGE,), of the rows that its slots hold */
struct fd_keys {                            /* a set of keys and values, and what the rows of a pass see of it */
    const struct fd_cache *caches;          /* (sequences,) */
    const int32_t *slots, *nodes;           /* (rows,) */
    const int32_t *runs;                    /* visible slots of node g, in position order: runs of (start, length) ... */
    const int64_t *run_offsets;             /* ... number run_offsets[g] .. run_offsets[g + 1]; (nodes + 1,) */
    const int64_t *key_counts;              /* (nodes,) the total length of its runs */
    int64_t most_keys;                      /* the largest of them */
};
struct fd_draw {                            /* what the head draws a token of one row with */
    uint64_t seed;
    uint64_t reached;                       /* 0; written to meanwhile */
    uint32_t sequence, round;
    float temperature;                      /* 0: nothing is drawn */
};
struct fd_pass {
    int64_t rows;
    const int32_t *tokens;                  /* (columns, rows), of which most plans read one; -1: none; or NULL when `inputs` stand in their place */
    const float *inputs;                    /* (rows, width) */
    const int32_t *positions, *sequences;   /* (rows,) */
    const struct fd_keys *keys;             /* by key_set; 0: the rows' own */
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
/* Stage s is ops stages[s] .. stages[s + 1], s < count.  Returns a status; where a row is not finite, `where` is the op and it.
 * clock (count + 1,): steady nanoseconds at which each stage began and the last one ended; or NULL. */
int fd_forward(const struct fd_op *ops, const int64_t *stages, int64_t count, const struct fd_pass *pass, int threads,
               int64_t *where, int64_t *clock);

/* ---- kernels ---- */
#define FD_KERNEL(type, name, parameters, names) type fd_##name parameters;
#define FD_PLAIN_KERNEL(type, name, parameters, names) type fd_##name parameters;
#define FD_REALS_KERNEL(type, name, parameters, names) type fd_##name parameters;
#include "kernels.h"
