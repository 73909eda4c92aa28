/* distance_rows.c - distances from a few points to many, for floats and for doubles. */
#define FD_REAL 32
#include "../real.h"
#include "distance_rows.h"
#undef FD_REAL
#define FD_REAL 64
#include "../real.h"
#include "distance_rows.h"
#undef FD_REAL
