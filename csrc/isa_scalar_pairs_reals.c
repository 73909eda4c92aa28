/* isa_scalar_pairs_reals.c - distances, transport, divergences over weights of another layout, for tests. */
#if defined(FD_TEST_LAYOUT)
#include "vec_scalar_pairs.h"
#include "kernels/all_reals.h"
#endif
