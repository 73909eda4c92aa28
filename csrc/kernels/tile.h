/* tile.h - what every kernel's body may use, after the words of its level: mathematics, tiles in registers, the level's name. */
#pragma once
#include "../base.h"
#include "../vec_math.h"

#define FD_INLINE static inline __attribute__((always_inline))
/* A body with a copy for each constant that it is called with, its loops unrolled: the arrays of a tile are registers.  In scalar, where
 * no tile stays in registers, one body for all. */
#if defined(FD_LEVEL_IS_SCALAR)
#define FD_SHAPED static __attribute__((noinline))
#define FD_UNROLL
#elif defined(__clang__)
#define FD_SHAPED FD_INLINE
#define FD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FD_SHAPED FD_INLINE
#define FD_UNROLL _Pragma("GCC unroll 8")
#endif
#define FD_FETCH(p, bytes) FD_UNROLL for (int line = 0; line < (bytes); line += 64) __builtin_prefetch((p) + line)
#define FD_ROWS FD_UNROLL for (int r = 0; r < rows; r++)

#define FD_JOIN2(a, b) a##b
#define FD_JOIN(a, b) FD_JOIN2(a, b)
#define FD_LEVEL_NAME(of) FD_JOIN(of, FD_LEVEL)
#define FD_TEXT2(a) #a
#define FD_TEXT(a) FD_TEXT2(a)
