/* linear_rows.h - the rows that a linear multiplies. */
#pragma once
#include "../../base.h"

struct linear_rows {
    const float *x;                      /* floats, from row to row x_stride; NULL for quantised weights */
    int64_t x_stride;
    const struct fd_block *codes;        /* quantised rows, `blocks` a row, */
    int64_t blocks, count;               /* of which the first `count` are multiplied */
};
