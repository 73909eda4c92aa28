/* isa_neon_reals.c - distances, transport, divergences for ARMv8.0. */
#if defined(__aarch64__)
#include "vec_neon.h"
#include "kernels/all_reals.h"
#endif
