/* memory.c - what C allocates, which is counted. */
#include <stdatomic.h>
#include <stdlib.h>
#include "base.h"

static _Atomic int64_t allocations;
int64_t fd_allocations(void) { return allocations; }
void *fd_malloc(size_t bytes) { allocations++; return aligned_alloc(64, (bytes + 63) / 64 * 64); }
