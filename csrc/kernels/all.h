/* all.h - the list of kernels, compiled once a level; ends by filling the level's struct of functions. */
#include <float.h>
#include <stdlib.h>
#include "../internal.h"
#include "../vec_math.h"
#include "pack.c"
#include "quantize_rows.c"
#include "linear.c"
#include "row_statistics.c"
#include "philox.c"
#include "gumbel_noise.c"
#include "sample.c"
#include "head.c"
#include "elementwise.c"
#include "rotary.c"
#include "attention.c"
#include "ops.c"
#include "exp_log.c"
#include "probabilities.c"
#include "find_matches.c"
#include "ngram_pool.c"
#include "residual_distribution.c"
#include "tree_layout.c"
#include "lookahead_layout.c"
#include "best.c"
#include "expand_tree.c"
#include "build_tree.c"
#include "verify_tree.c"
#include "fixed_point_prefix.c"
#include "jacobi_step.c"
#include "draft_and_verify.c"
#include "unmask_select.c"
#include "distance_rows.c"
#include "softmax.c"
#include "unit_rows.c"
#include "pairwise_distance.c"
#include "distance_gradient.c"
#include "unrolled_sinkhorn.c"
#include "sinkhorn.c"
#include "transport_rows.c"
#include "../peak.c"

#define FD_JOIN2(a, b) a##b
#define FD_JOIN(a, b) FD_JOIN2(a, b)
#define FD_TEXT2(a) #a
#define FD_TEXT(a) FD_TEXT2(a)

const struct fd_kernels FD_JOIN(fd_kernels_, FD_LEVEL) = {
    .name = FD_TEXT(FD_LEVEL),
    .product = {[FD_F32] = FD_PRODUCT_FLOAT, [FD_F16] = FD_PRODUCT_FLOAT, [FD_BF16] = FD_PRODUCT_FLOAT,
                [FD_Q8] = FD_PRODUCT_Q8, [FD_Q4] = FD_PRODUCT_Q4},
    .row_tile = FD_ROW_TILE,
#ifdef FD_LEVEL_IS_SCALAR
    .pack_rows = pack_rows,
#endif
    .quantize_rows = quantize_rows,
    .row_statistics = row_statistics,
    .linear = linear,
    .exp_log = exp_log,
    .philox = philox,
    .gumbel_noise = gumbel_noise,
    .sample = sample,
    .probabilities = probabilities,
    .find_matches = find_matches,
    .ngram_pool_insert = ngram_pool_insert,
    .ngram_pool_lookup = ngram_pool_lookup,
    .residual_distribution = residual_distribution,
    .tree_layout = tree_layout,
    .lookahead_layout = lookahead_layout,
    .expand_tree = expand_tree,
    .build_tree = build_tree,
    .verify_tree = verify_tree,
    .fixed_point_prefix = fixed_point_prefix,
    .jacobi_step = jacobi_step,
    .draft_and_verify = draft_and_verify,
    .unmask_select = unmask_select,
    .softmax = softmax,
    .softmax_gradient = softmax_gradient,
    .unit_rows = unit_rows,
    .pairwise_distance = pairwise_distance,
    .distance_gradient = distance_gradient,
    .unrolled_sinkhorn = unrolled_sinkhorn,
    .sinkhorn_workspace = sinkhorn_workspace,
    .sinkhorn = sinkhorn,
    .transport_rows_workspace = transport_rows_workspace,
    .transport_rows = transport_rows,
    .peak = peak,
    .op_tasks = op_tasks,
    .op_run = op_run,
    .op_ahead = op_ahead,
};
