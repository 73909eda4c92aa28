/* isa_i8mm.c - every kernel of decoding for ARMv8.2 with the products of int8 matrices. */
#if defined(__aarch64__)
#define FD_LEVEL i8mm
#define FD_REALS_LEVEL neon
#define FD_DOT
#define FD_I8MM
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#define __ARM_FEATURE_DOTPROD 1
#define __ARM_FEATURE_MATMUL_INT8 1
#else
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif
#include "tile_neon.h"
#include "kernels/all.h"
#endif
