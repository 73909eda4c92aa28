/* isa_avx2.c - every kernel for AVX2 with FMA and F16C. */
#if defined(__x86_64__)
#include <stdlib.h>
#include <math.h>
#include "internal.h"
#include <immintrin.h>
#define FD_LEVEL avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include "vec_avx2.h"
#include "kernels/all.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
