/* isa_scalar_pairs.c - every kernel of decoding over weights of another layout, for tests. */
#if defined(FD_TEST_LAYOUT)
#include "vec_scalar_pairs.h"
#include "kernels/all.h"
#endif
