/* isa_neon_transport.c - distances and transport for ARMv8.0. */
#if defined(__aarch64__)
#include "vec_neon.h"
#include "kernels/all_transport.h"
#endif
