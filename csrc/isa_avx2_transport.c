/* isa_avx2_transport.c - distances and transport for AVX2 with FMA and F16C. */
#if defined(__x86_64__)
#include "vec_avx2.h"
#include "kernels/all_transport.h"
#endif
