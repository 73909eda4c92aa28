/* isa_scalar_pairs_transport.c - distances and transport over weights of another layout, for tests. */
#if defined(FD_TEST_LAYOUT)
#include "vec_scalar_pairs.h"
#include "kernels/all_transport.h"
#endif
