/* isa_avx2_reals.c - distances, transport, divergences for AVX2 with FMA and F16C. */
#if defined(__x86_64__)
#include "vec_avx2.h"
#include "kernels/all_reals.h"
#endif
