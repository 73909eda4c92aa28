/* base.h - what every C file stands on: the machine it asks for, units that shapes are cut by, rounding up, counted memory, time. */
#pragma once
#include <float.h>
#include <stddef.h>
#include "fastdistill.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fastdistill is for little-endian CPUs");
_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16, "an operation must round to its type: on 32-bit x86, -msse2 -mfpmath=sse");         /* 16 is of _Float16 alone */
#if defined(__arm__) && defined(__clang__) && defined(__ARM_NEON)
#error "clang computes floats with 32-bit NEON, which flushes subnormal numbers: take gcc"
#endif

enum {
    FD_LANES = 16,          /* floats of a vf, outputs of one tile of weights */
    FD_BLOCK = 32,          /* weights and activations that share one scale */
    FD_CHUNK = 256,         /* entries of a vocabulary that are summed as one: of the head, of statistics, of laws */
    FD_STEP = 1 << 14       /* elements that an optimiser's task changes: with their moments, what a second cache holds */
};
static inline int64_t fd_ceil(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
static inline int64_t fd_pad(int64_t n, int64_t unit) { return fd_ceil(n, unit) * unit; }
static inline int64_t fd_stride(int64_t width) { return fd_pad(width, FD_BLOCK); }   /* floats from row to row; the padding is 0 */
static inline int64_t fd_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fd_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- platform.c ---- */
void *fd_malloc(size_t bytes);              /* on a cache line; counted: see fd_allocations */
void fd_free(void *memory);
int64_t fd_nanoseconds(void);               /* since some moment, steadily */
