/* dispatch.c - the entries that Python calls: kernels of the selected level. */
#include "float_mode.h"
#include "levels.h"

#define FD_KERNEL(type, name, parameters, names) type fd_##name parameters { return FD_IEEE(fd_selected_kernels()->name names); }
#define FD_TRANSPORT_KERNEL(type, name, parameters, names) \
    type fd_##name parameters { return FD_IEEE(fd_selected_kernels()->transport->name names); }
#include "kernels.h"
