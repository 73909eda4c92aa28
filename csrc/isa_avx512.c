/* isa_avx512.c - every kernel of decoding for AVX-512 F, BW, DQ, VL and VNNI. */
#if defined(__x86_64__)
#include "vec_avx512.h"
#include "kernels/all.h"
#endif
