/* all_transport.h - the list of the kernels of distances and transport, as all.h. */
#include <float.h>
#include "tile.h"
#include "distance_rows.c"
#include "softmax.c"
#include "unit_rows.c"
#include "pairwise_distance.c"
#include "distance_gradient.c"
#include "unrolled_sinkhorn.c"
#include "sinkhorn.c"
#include "transport_rows.c"

const struct fd_transport_kernels FD_LEVEL_NAME(fd_transport_) = {
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
};
#include "tile_end.h"
