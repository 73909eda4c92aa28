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
#define FD_TRANSPORT_KERNEL(type, name, parameters, names) .name = name,
#include "../kernels.h"
};
#include "tile_end.h"
