/* isa_scalar.c - every kernel of decoding in plain C: the meaning of the other levels, and the only level of an unknown CPU. */
#include "vec_scalar.h"
#include "kernels/all.h"
