/* dispatch.c - the entries that Python calls: kernels of the selected level. */
#include "float_mode.h"
#include "levels.h"

#define FD_KERNEL(type, name, parameters, names) type fd_##name parameters { return FD_IEEE(fd_selected_kernels()->name names); }
#define FD_REALS_KERNEL(type, name, parameters, names) \
    type fd_##name parameters { return FD_IEEE(fd_selected_kernels()->reals->name names); }
#include "kernels.h"
