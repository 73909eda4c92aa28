/* isa_neon.c - every kernel of decoding for ARMv8.0. */
#if defined(__aarch64__)
#include "tile_neon.h"
#include "kernels/all.h"
#endif
