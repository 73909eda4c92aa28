/* isa_scalar.c - every kernel in portable C: the meaning of the other levels, and the only level of an unknown CPU. */
#define FD_LEVEL scalar
#define FD_LEVEL_IS_SCALAR
#include "vec_scalar.h"
#include "kernels/all.h"
