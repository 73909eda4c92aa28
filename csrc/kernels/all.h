/* all.h - the list of kernels, compiled once a level; ends by filling the level's struct of functions.  Those of reals alone, half of
 * a level's code, are a unit of their own (all_reals.h): it is compiled beside this one, or is another level's, which
 * FD_REALS_LEVEL then names: levels may differ in their products of integers alone. */
#include "../levels.h"
#include "forward/block.h"
#include "tile.h"
#include "distill/top_k.c"
#include "fixed_point/fixed_point_prefix.c"
#include "fixed_point/jacobi_step.c"
#include "forward/activation.c"
#include "forward/attention.c"
#include "forward/elementwise.c"
#include "forward/exp_log.c"
#include "forward/experts.c"
#include "forward/head.c"
#include "forward/linear.c"
#include "forward/ops.c"
#include "forward/quantize_rows.c"
#include "forward/rotary.c"
#include "forward/row_statistics.c"
#include "forward/unpack.c"
#include "sample/gumbel_noise.c"
#include "sample/philox.c"
#include "sample/probabilities.c"
#include "sample/sample.c"
#include "train/activation_gradient.c"
#include "train/adamw_step.c"
#include "train/attention_gradient.c"
#include "train/elementwise_gradient.c"
#include "train/experts_gradient.c"
#include "train/linear_gradient.c"
#include "train/norm_gradient.c"
#include "train/sgd_step.c"
#include "train/sum_of_squares.c"
#include "unmask/unmask_select.c"
#include "verify/best.c"
#include "verify/expand_tree.c"
#include "verify/find_matches.c"
#include "verify/residual_distribution.c"
#include "verify/verify_tree.c"

#if !defined(FD_REALS_LEVEL)
#define FD_REALS_LEVEL FD_LEVEL
#endif
extern const struct fd_reals_kernels FD_JOIN(fd_reals_, FD_REALS_LEVEL);
const struct fd_kernels FD_LEVEL_NAME(fd_kernels_) = {
    .name = FD_TEXT(FD_LEVEL),
    .reals = &FD_JOIN(fd_reals_, FD_REALS_LEVEL),
    .product = {[FD_F32] = FD_PRODUCT_FLOAT, [FD_F16] = FD_PRODUCT_FLOAT, [FD_BF16] = FD_PRODUCT_FLOAT,
                [FD_Q8] = FD_PRODUCT_Q8, [FD_Q4] = FD_PRODUCT_Q4},
    .row_tile = FD_ROW_TILE,
    .layout = FD_LAYOUT,
#define FD_KERNEL(type, name, parameters, names) .name = name,
#include "../kernels.h"
    .op_tasks = op_tasks,
    .op_run = op_run,
    .op_ahead = op_ahead,
};
#include "tile_end.h"
