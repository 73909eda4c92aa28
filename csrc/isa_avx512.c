/* isa_avx512.c - every kernel for AVX-512 F, BW, DQ, VL and VNNI. */
#if defined(__x86_64__)
#include <stdlib.h>
#include <math.h>
#include "internal.h"
#define FD_LEVEL avx512
#define FD_WIDE_ROW_TILE
#if defined(FD_EMULATE_AVX512)             /* tests/cross/run_avx512.sh: the same intrinsics on AVX2 */
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#endif
#include "vec_avx512.h"
#include "kernels/all.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
