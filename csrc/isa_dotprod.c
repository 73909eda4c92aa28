/* isa_dotprod.c - every kernel of decoding for ARMv8.2 with the dot product. */
#if defined(__aarch64__)
#define FD_LEVEL dotprod
#define FD_REALS_LEVEL neon
#define FD_DOT
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#define __ARM_FEATURE_DOTPROD 1
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include "tile_neon.h"
#include "kernels/all.h"
#endif
