/* platform.c - time that passes steadily, and memory, which is counted. */
#include <stdatomic.h>
#include <stdlib.h>
#include "base.h"
#if defined(_WIN32)
#include <windows.h>
#include <malloc.h>
#else
#include <time.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

static _Atomic int64_t allocations;
int64_t fd_allocations(void) { return allocations; }

#if defined(_WIN32)
void *fd_malloc(size_t bytes) { allocations++; return _aligned_malloc(bytes, 64); }
void fd_free(void *memory) { _aligned_free(memory); }
int64_t fd_nanoseconds(void)
{
    LARGE_INTEGER ticks, second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&second);              /* some 10^7: what is multiplied stays below 2^63 */
    return ticks.QuadPart / second.QuadPart * 1000000000 + ticks.QuadPart % second.QuadPart * 1000000000 / second.QuadPart;
}
#else
void *fd_malloc(size_t bytes) { allocations++; return aligned_alloc(64, (bytes + 63) / 64 * 64); }
void fd_free(void *memory) { free(memory); }
int64_t fd_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

void fd_return_memory(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}
