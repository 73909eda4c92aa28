/* isa_avx512_reals.c - distances, transport, divergences for AVX-512 F, BW, DQ, VL and VNNI. */
#if defined(__x86_64__)
#include "vec_avx512.h"
#include "kernels/all_reals.h"
#endif
