/* all_transport.h - the list of the kernels of distances and transport, as all.h. */
#include "../levels.h"
#include "tile.h"
#include "transport/distance_gradient.c"
#include "transport/distance_rows.c"
#include "transport/pairwise_distance.c"
#include "transport/sinkhorn.c"
#include "transport/softmax.c"
#include "transport/transport_rows.c"
#include "transport/unit_rows.c"
#include "transport/unrolled_sinkhorn.c"

const struct fd_transport_kernels FD_LEVEL_NAME(fd_transport_) = {
#define FD_TRANSPORT_KERNEL(type, name, parameters, names) .name = name,
#include "../kernels.h"
};
#include "tile_end.h"
