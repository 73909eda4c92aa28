/* distance_rows.c - distances from a few points to many, for floats and for doubles. */
#pragma once
#include "../tile.h"

#define FD_REAL 32
#include "../real.h"
#include "distance_rows_real.h"
#define FD_REAL 64
#include "../real.h"
#include "distance_rows_real.h"
