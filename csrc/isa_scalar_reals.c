/* isa_scalar_reals.c - distances, transport, divergences in plain C: the meaning of the other levels, and the only level of an unknown CPU. */
#include "vec_scalar.h"
#include "kernels/all_reals.h"
