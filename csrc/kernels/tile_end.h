/* tile_end.h - the end of a unit of a level: clang wants its target back. */
#if defined(__clang__) && !defined(FD_LEVEL_IS_SCALAR)
#pragma clang attribute pop
#endif
