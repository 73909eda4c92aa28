/* exp_log.c - the exp and log that every kernel uses, over an array, so that they can be tested on their own. */
#pragma once
#include "../tile.h"

#define FD_REAL 32
#include "../real.h"
#include "exp_log_real.h"
#define FD_REAL 64
#include "../real.h"
#include "exp_log_real.h"
static void exp_log(int bits, int64_t n, const void *x, void *exp_out, void *log_out)
{
    if (bits == 64) exp_log_f64(n, x, exp_out, log_out);
    else exp_log_f32(n, x, exp_out, log_out);
}
