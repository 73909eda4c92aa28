/* kernels.h - every kernel, its signature and the shape of every pointer, once: FD_KERNEL(type, name, (parameters), (their names)).
 *
 * Whoever includes this says what a line becomes: a prototype fd_<name> in fastdistill.h, a pointer in the struct of a level, a line of
 * that struct, an entry that calls it.  FD_REALS_KERNEL is a kernel of the other unit of a level,
 * FD_PLAIN_KERNEL one of no level, compiled once.  Each of the three may be left undefined.
 */
#if !defined(FD_KERNEL)
#define FD_KERNEL(type, name, parameters, names)
#endif
#if !defined(FD_PLAIN_KERNEL)
#define FD_PLAIN_KERNEL(type, name, parameters, names)
#endif
#if !defined(FD_REALS_KERNEL)
#define FD_REALS_KERNEL(type, name, parameters, names)
#endif

/* ---- logits, weights, activations ---- */
/* x (rows, width) -> codes (rows, blocks * 32), scale, sum, total (rows, blocks); blocks = ceil(width / 32).
 * sum = scale * total, total = the sum of the codes. */
FD_KERNEL(int, quantize_rows, (int64_t rows, int64_t width, const float *x, int8_t *codes, float *scale, float *sum,
          int32_t *total),
          (rows, width, x, codes, scale, sum, total))
/* x (rows, inputs) -> y (rows, outputs) */
FD_KERNEL(int, linear, (const struct fd_weight *weight, int64_t rows, const float *x, float *y, int threads),
          (weight, rows, x, y, threads))
/* logits (rows, vocab), vocab < 2^31 -> argmax, top, second, log_sum_exp, entropy, log_prob of argmax, each (rows,) */
FD_KERNEL(int, row_statistics, (int64_t rows, int64_t vocab, const float *logits, int32_t *argmax, float *top, float *second,
          float *log_sum_exp, float *entropy, float *log_prob, int threads),
          (rows, vocab, logits, argmax, top, second, log_sum_exp, entropy, log_prob, threads))
/* floats that a pass wants: of partial_statistics a read row, of partial_attention */
FD_KERNEL(int64_t, statistics_floats, (int64_t vocab), (vocab))
FD_KERNEL(int64_t, attention_floats, (int64_t heads, int64_t head_dim, int64_t tiles), (heads, head_dim, tiles))
FD_KERNEL(int64_t, attention_tiles, (int64_t keys), (keys))
/* out[i] = e^x[i], log x[i]: the functions every kernel uses */
FD_KERNEL(void, exp_log, (int bits, int64_t n, const void *x, void *exp_out, void *log_out), (bits, n, x, exp_out, log_out))

/* ---- chance: everything random is a function of a key, a position and a token ---- */
/* Philox4x32-10: counter (n, 4), key (2,) -> words (n, 4) */
FD_KERNEL(void, philox, (int64_t n, const uint32_t *counter, const uint32_t *key, uint32_t *words), (n, counter, key, words))
/* positions (rows,) -> noise (rows, vocab), vocab < 2^31 */
FD_KERNEL(void, gumbel_noise, (int64_t rows, int64_t vocab, const int32_t *positions, const struct fd_chance *chance,
          float *noise),
          (rows, vocab, positions, chance, noise))
/* bytes a thread */
FD_KERNEL(int64_t, sample_workspace, (int64_t vocab), (vocab))
/* logits (rows, vocab), vocab < 2^23; positions (rows,); seen tokens of row i, in the order of its text: seen[seen_offsets[i]] up to
 * seen_offsets[i + 1], or NULL; allowed (rows, ceil(vocab / 32)) bits or NULL; noise (rows, vocab), or NULL for Gumbel noise -> tokens (rows,);
 * workspace of min(threads, rows) pieces.  Returns the status of the first row at fault; tokens[i] is minus its status there. */
FD_KERNEL(int, sample, (int64_t rows, int64_t vocab, const float *logits, const int32_t *positions,
          const struct fd_sampler *sampler, const int32_t *seen, const int64_t *seen_offsets, const uint32_t *allowed,
          const float *noise, int32_t *tokens, void *workspace, int threads),
          (rows, vocab, logits, positions, sampler, seen, seen_offsets, allowed, noise, tokens, workspace, threads))
/* Likewise -> probabilities (rows, vocab); probabilities[i][0] is minus the status of a row at fault. */
FD_KERNEL(int, probabilities, (int64_t rows, int64_t vocab, const float *logits, const struct fd_sampler *sampler,
          const int32_t *seen, const int64_t *seen_offsets, const uint32_t *allowed, float *probabilities, void *workspace,
          int threads),
          (rows, vocab, logits, sampler, seen, seen_offsets, allowed, probabilities, workspace, threads))

/* ---- drafts ---- */
/* tokens (n,), n < 2^31 -> starts, lengths, each (count,); returns how many of them were found and filled, the best first */
FD_KERNEL(int64_t, find_matches, (int64_t n, const int32_t *tokens, int64_t max_match, int64_t min_match, int64_t count,
          int32_t *starts, int32_t *lengths),
          (n, tokens, max_match, min_match, count, starts, lengths))
/* Every window of `ngram` tokens of each row; tokens (rows, n). */
FD_PLAIN_KERNEL(void, ngram_pool_insert, (const struct fd_ngram_pool *pool, int64_t rows, int64_t n, const int32_t *tokens),
          (pool, rows, n, tokens))
/* key (key,) -> continuations (count, ngram - key); returns how many were found and filled, the newest first. */
FD_PLAIN_KERNEL(int64_t, ngram_pool_lookup, (const struct fd_ngram_pool *pool, const int32_t *key, int64_t count,
          int32_t *continuations),
          (pool, key, count, continuations))

/* ---- verification of drafts ---- */
/* p, q (vocab,) -> r (vocab,) = max(a p - q, 0), a rounded to float, apart from p and q; mass (1,) the sum of r */
FD_KERNEL(int, residual_distribution, (int64_t vocab, double a, const float *p, const float *q, float *r, double *mass),
          (vocab, a, p, q, r, mass))
/* bytes, for trees of up to so many nodes */
FD_KERNEL(int64_t, verify_tree_workspace, (int rule, int64_t nodes, int64_t vocab), (rule, nodes, vocab))
/* Tree t is nodes offsets[t] .. offsets[t + 1], at least one; parents, tokens, draft_rows, uniforms (nodes,); drawn (nodes,) for
 * FD_COUPLED, target (nodes, vocab) and uniforms for the others; drafts (rows, vocab), draft_rows NULL where all are -1.
 * -> path, emitted, verdicts (nodes,), accepted, bonus (trees,).  At fault: where (2,), a node, and a row of drafts or -1. */
FD_KERNEL(int, verify_tree, (int64_t trees, int64_t vocab, int64_t rows, const int64_t *offsets, const int32_t *parents,
          const int32_t *tokens, const int32_t *drawn, const float *target, const float *drafts, const int32_t *draft_rows,
          const double *uniforms, const struct fd_verifier *set, int32_t *path, int32_t *emitted, int32_t *accepted,
          int32_t *bonus, int8_t *verdicts, void *workspace, int64_t *where),
          (trees, vocab, rows, offsets, parents, tokens, drawn, target, drafts, draft_rows, uniforms, set, path, emitted, accepted,
          bonus, verdicts, workspace, where))

/* ---- trees: parents stand before their children ---- */
/* parents (n,), node 0 the root -> depths (n,), ancestors (n, ceil(n / 64)) bits, leaves (n,), children (n - 1,) of node i from
 * child_offsets[i] on, child_offsets (n + 1,).  Returns the number of leaves, or -1 - i where the parent of node i is not before it. */
FD_PLAIN_KERNEL(int64_t, tree_layout, (int64_t n, const int32_t *parents, int32_t *depths, uint64_t *ancestors, int32_t *leaves,
          int32_t *children, int32_t *child_offsets),
          (n, parents, depths, ancestors, leaves, children, child_offsets))
/* window (levels, columns), guess_tokens (guesses, length) -> tokens, parents, positions, each (rows,), row 0 the seed; cells (levels,
 * columns), branches (guesses, length): the rows of both.  Room for 1 + levels * columns + guesses * length < 2^31 rows, there and in the
 * work space first_child, next_sibling (rows,), which are NULL where no rows are to be merged.  Returns how many rows there are. */
FD_PLAIN_KERNEL(int64_t, lookahead_layout, (int64_t levels, int64_t columns, int64_t guesses, int64_t length, const int32_t *window,
          const int32_t *guess_tokens, int32_t seed, int32_t *tokens, int32_t *parents, int32_t *positions, int32_t *cells,
          int32_t *branches, int32_t *first_child, int32_t *next_sibling),
          (levels, columns, guesses, length, window, guess_tokens, seed, tokens, parents, positions, cells, branches, first_child,
          next_sibling))
/* logits (frontier, vocab), frontier * vocab < 2^32; scores (frontier,) -> tokens, rows, expanded, each (count,), of which the first
 * `found` are filled, the best first; workspace (frontier * min(count, vocab) + count,) */
FD_KERNEL(int, expand_tree, (int64_t frontier, int64_t vocab, const float *logits, const float *scores, int64_t count,
          int32_t *tokens, int32_t *rows, float *expanded, int64_t *found, uint64_t *workspace, int threads),
          (frontier, vocab, logits, scores, count, tokens, rows, expanded, found, workspace, threads))
/* parents (n,), -1: of the seed; scores (n,) -> nodes, kept_parents, each (min(budget, n),); workspace (n + min(budget, n),).
 * Returns how many are kept, or -1 - i where the parent of node i is not before it. */
FD_PLAIN_KERNEL(int64_t, build_tree, (int64_t n, const int32_t *parents, const float *scores, int64_t budget, int32_t *nodes,
          int32_t *kept_parents, uint64_t *workspace),
          (n, parents, scores, budget, nodes, kept_parents, workspace))

/* ---- fixed points: iterates of a triangular system, n < 2^31 tokens a row ---- */
/* previous, current (rows, n) -> prefix (rows,): how many leading positions of current are final */
FD_KERNEL(void, fixed_point_prefix, (int64_t rows, int64_t n, const int32_t *previous, const int32_t *current, int32_t *prefix),
          (rows, n, previous, current, prefix))
/* iterate, drawn (rows, n), n >= 1: drawn[i] is what the model says after iterate[0 .. i] -> next, stationary (rows, n), prefix,
 * bonus, converged (rows,); stationary and converged are 0 or 1 */
FD_KERNEL(void, jacobi_step, (int64_t rows, int64_t n, const int32_t *iterate, const int32_t *drawn, int32_t *next,
          int32_t *prefix, int8_t *stationary, int32_t *bonus, int8_t *converged),
          (rows, n, iterate, drawn, next, prefix, stationary, bonus, converged))

/* ---- masked diffusion: texts of n < 2^31 positions, masked where they hold the mask token ---- */
/* states, tokens, scores (branches, n), 1 <= branches <= 1 + count; steps (count, 3), each start, end, quota -> drafted (drafts, n), of
 * which min(drafts, count - accepted) are filled; workspace (n,).  Returns accepted; or -1 - i where step i does not fit; or
 * -1 - count - i where element i of tokens is the mask token and a step would commit it. */
FD_PLAIN_KERNEL(int64_t, draft_and_verify, (int64_t branches, int64_t n, int64_t count, const int32_t *states, const int32_t *tokens,
          const float *scores, const int32_t *steps, int32_t mask_token, int64_t drafts, int32_t *drafted, uint64_t *workspace),
          (branches, n, count, states, tokens, scores, steps, mask_token, drafts, drafted, workspace))
/* masked, statistics as the score, the budget and explore need them, given, bias, also, each (rows, n) or NULL; quota (rows,) or NULL;
 * bounds (n,) or NULL: what the score of rank k must exceed -> chosen, ranks, confidence (rows, n), count (rows,); chosen is 0 or 1;
 * workspace (rows, n) */
FD_KERNEL(void, unmask_select, (int64_t rows, int64_t n, const int8_t *masked, const float *top, const float *second,
          const float *log_sum_exp, const float *entropy, const float *log_prob, const float *given, const float *bias,
          const int8_t *also, const int32_t *quota, const float *bounds, const struct fd_unmask_rule *rule, int8_t *chosen,
          int32_t *count, int32_t *ranks, float *confidence, uint64_t *workspace, int threads),
          (rows, n, masked, top, second, log_sum_exp, entropy, log_prob, given, bias, also, quota, bounds, rule, chosen, count,
          ranks, confidence, workspace, threads))

/* ---- distances and transport; `bits` says what real is: float (32) or double (64) ---- */
/* logits (rows, width) -> probabilities (rows, width), of logits / temperature */
FD_REALS_KERNEL(int, softmax, (int bits, int64_t rows, int64_t width, double temperature, const void *logits,
          void *probabilities, int threads),
          (bits, rows, width, temperature, logits, probabilities, threads))
/* probabilities, gradient (rows, width): gradient by the probabilities becomes gradient by the logits, times scale */
FD_REALS_KERNEL(void, softmax_gradient, (int bits, int64_t rows, int64_t width, double scale, const void *probabilities,
          void *gradient, int threads),
          (bits, rows, width, scale, probabilities, gradient, threads))
/* x (rows, d) -> unit (rows, d) of length 1, lengths (rows,): not finite where x is not; 0 where x is, and unit then */
FD_REALS_KERNEL(void, unit_rows, (int bits, int64_t rows, int64_t d, const void *x, void *unit, double *lengths, int threads),
          (bits, rows, d, x, unit, lengths, threads))
/* bytes */
FD_REALS_KERNEL(int64_t, pairwise_distance_workspace, (int bits, int64_t batch, int64_t n, int64_t m, int64_t d), (bits, batch, n, m, d))
/* x (batch, n, d), y (batch, m, d) -> distances (batch, n, m); n, m, d >= 1.  Cosine: of points of length 1. */
FD_REALS_KERNEL(int, pairwise_distance, (int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d, const void *x,
          const void *y, void *distances, void *workspace, int threads),
          (bits, metric, batch, n, m, d, x, y, distances, workspace, threads))
/* bytes */
FD_REALS_KERNEL(int64_t, distance_gradient_workspace, (int bits, int64_t batch, int64_t m, int64_t d), (bits, batch, m, d))
/* weights (batch, n, m), x (batch, n, d), y (batch, m, d) -> gradient (batch, n, d).  Euclidean: of weights that were divided by the
 * distances.  Cosine: of points of length 1, lengths (batch, n) what they were; NULL for other metrics. */
FD_REALS_KERNEL(int, distance_gradient, (int bits, int metric, int64_t batch, int64_t n, int64_t m, int64_t d,
          const void *weights, const void *x, const void *y, const double *lengths, void *gradient, void *workspace, int threads),
          (bits, metric, batch, n, m, d, weights, x, y, lengths, gradient, workspace, threads))
/* doubles */
FD_REALS_KERNEL(int64_t, unrolled_sinkhorn_workspace, (int64_t batch, int64_t n, int64_t m, int64_t iterations),
          (batch, n, m, iterations))
FD_REALS_KERNEL(int64_t, unrolled_sinkhorn_steps, (int64_t iterations), (iterations))
/* Steps begin .. end of fd_unrolled_sinkhorn_steps, to be run in order, in any number of calls. */
FD_REALS_KERNEL(void, unrolled_sinkhorn, (const struct fd_unrolled *problem, int64_t begin, int64_t end, int threads),
          (problem, begin, end, threads))
/* bytes */
FD_REALS_KERNEL(int64_t, sinkhorn_workspace, (const struct fd_transport *transport, int64_t count, int threads),
          (transport, count, threads))
/* Goes on with problems first .. first + count for so long, in the workspace of these.  Returns how many are left to go on with.
 * Threads share the rows of one problem, or several problems. */
FD_REALS_KERNEL(int64_t, sinkhorn, (const struct fd_transport *transport, int64_t first, int64_t count, void *workspace,
          int64_t nanoseconds, int threads),
          (transport, first, count, workspace, nanoseconds, threads))
/* bytes */
FD_REALS_KERNEL(int64_t, transport_rows_workspace, (const struct fd_transport *transport, int threads), (transport, threads))
/* Rows first .. first + count of one problem's plan times scale.  FD_PLAN -> out (count, m).  FD_PRODUCT: values (width, m padded to 16)
 * -> out (count, width), the sums over columns of plan times value.  FD_GRADIENT -> out (count, d): the plan's sums of the derivatives
 * of the distances by x; of cosine minus the plan's sums of y. */
FD_REALS_KERNEL(void, transport_rows, (const struct fd_transport *transport, int64_t problem, int64_t first, int64_t count,
          int kind, double scale, int64_t width, const void *values, void *out, void *workspace, int threads),
          (transport, problem, first, count, kind, scale, width, values, out, workspace, threads))

/* ---- divergences of rows ---- */
/* bytes a thread */
FD_REALS_KERNEL(int64_t, row_divergence_workspace, (int bits, int64_t vocab), (bits, vocab))
/* student, teacher (rows, vocab), 1 <= vocab < 2^31; labels (rows,) or NULL: -1 is none; weights (rows,): rows of weight 0 are not read
 * -> values, label_values (rows,): NaN where a row is no logits; gradient (rows, vocab) or NULL; may be the student's own memory.
 * workspace of min(threads, rows) pieces. */
FD_REALS_KERNEL(void, row_divergence, (const struct fd_divergence *set, int64_t rows, int64_t vocab, const void *student,
          const void *teacher, const int32_t *labels, const double *weights, double *values, double *label_values, void *gradient,
          void *workspace, int threads),
          (set, rows, vocab, student, teacher, labels, weights, values, label_values, gradient, workspace, threads))

/* bytes a thread */
FD_REALS_KERNEL(int64_t, row_divergence_topk_workspace, (int bits, int64_t vocab, int64_t k), (bits, vocab, k))
/* As row_divergence, of the teacher's log probabilities (rows, k) of reals at tokens (rows, k), -1: none, each once a row, k >= 1; tail (rows,)
 * of reals: the log of what is left, or NULL: both laws are normalised over the tokens.  A value of -inf: a token was listed twice. */
FD_REALS_KERNEL(void, row_divergence_topk, (const struct fd_divergence *set, int64_t rows, int64_t vocab, int64_t k,
          const void *student, const int32_t *tokens, const void *teacher, const void *tail, const int32_t *labels,
          const double *weights, double *values, double *label_values, void *gradient, void *workspace, int threads),
          (set, rows, vocab, k, student, tokens, teacher, tail, labels, weights, values, label_values, gradient, workspace, threads))
/* bytes */
FD_REALS_KERNEL(int64_t, head_divergence_workspace, (const struct fd_head_divergence *loss), (loss))
FD_REALS_KERNEL(void, head_divergence, (const struct fd_head_divergence *loss, void *workspace, int threads), (loss, workspace, threads))
/* logits (rows, vocab), vocab < 2^32, k <= vocab -> tokens, values (rows, k), the best first; workspace (rows, k) */
FD_KERNEL(int, top_k, (int64_t rows, int64_t vocab, int64_t k, const float *logits, int32_t *tokens, float *values,
          uint64_t *workspace, int threads),
          (rows, vocab, k, logits, tokens, values, workspace, threads))

/* ---- training ---- */
/* x (n,) -> the sum of squares, not finite where an x is not */
FD_KERNEL(double, sum_of_squares, (int64_t n, const float *x, int threads), (n, x, threads))
/* value, gradient, first, second (n,), in place; the gradient is zeroed or only read */
FD_KERNEL(void, adamw_step, (int64_t n, const struct fd_adamw *set, float *value, float *gradient, float *first, float *second,
          int threads),
          (n, set, value, gradient, first, second, threads))
/* value, gradient, velocity (n,) likewise; velocity NULL: no momentum */
FD_KERNEL(void, sgd_step, (int64_t n, const struct fd_sgd *set, float *value, float *gradient, float *velocity, int threads),
          (n, set, value, gradient, velocity, threads))

#undef FD_KERNEL
#undef FD_PLAIN_KERNEL
#undef FD_REALS_KERNEL
