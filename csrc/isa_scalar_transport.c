/* isa_scalar_transport.c - distances and transport in plain C: the meaning of the other levels, and the only level of an unknown CPU. */
#include "vec_scalar.h"
#include "kernels/all_transport.h"
