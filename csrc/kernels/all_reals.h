/* all_reals.h - the kernels whose numbers are reals alone, distances, transport and divergences, as all.h. */
#include "../levels.h"
#include "tile.h"
#include "distill/head_divergence.c"
#include "distill/row_divergence.c"
#include "distill/row_divergence_topk.c"
#include "transport/distance_gradient.c"
#include "transport/distance_rows.c"
#include "transport/pairwise_distance.c"
#include "transport/sinkhorn.c"
#include "transport/softmax.c"
#include "transport/transport_rows.c"
#include "transport/unit_rows.c"
#include "transport/unrolled_sinkhorn.c"

const struct fd_reals_kernels FD_LEVEL_NAME(fd_reals_) = {
#define FD_REALS_KERNEL(type, name, parameters, names) .name = name,
#include "../kernels.h"
};
#include "tile_end.h"
