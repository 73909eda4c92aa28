/* isa_avx512_transport.c - distances and transport for AVX-512 F, BW, DQ, VL and VNNI. */
#if defined(__x86_64__)
#include "vec_avx512.h"
#include "kernels/all_transport.h"
#endif
