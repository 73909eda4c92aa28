/* isa_avx2.c - every kernel of decoding for AVX2 with FMA and F16C. */
#if defined(__x86_64__)
#include "vec_avx2.h"
#include "kernels/all.h"
#endif
