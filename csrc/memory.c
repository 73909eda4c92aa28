/* memory.c - what C allocates, which is counted. */
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include "base.h"

static _Atomic int64_t allocations;
int64_t fd_allocations(void) { return allocations; }
void *fd_malloc(size_t bytes) { allocations++; return aligned_alloc(64, (bytes + 63) / 64 * 64); }
void fd_return_memory(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}
