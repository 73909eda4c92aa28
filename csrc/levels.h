/* levels.h - a level: what it is called, its kernels, and which one is selected. */
#pragma once
#include "fastdistill.h"

struct fd_reals_kernels {
#define FD_REALS_KERNEL(type, name, parameters, names) type (*name) parameters;
#include "kernels.h"
};
struct fd_kernels {
    const char *name;
    const struct fd_reals_kernels *reals;
    const char *product[FD_Q4 + 1];         /* of each weight format: how rows are multiplied by it, */
    int row_tile;                           /* this many at a time, */
    int layout;                             /* and how it has to lie: enum fd_layout */
#define FD_KERNEL(type, name, parameters, names) type (*name) parameters;
#include "kernels.h"
    int64_t (*op_tasks)(const struct fd_op *op, const struct fd_pass *pass);
    int (*op_ahead)(const struct fd_op *op, int64_t task, int64_t step);                  /* 0: nothing more to prefetch */
    int64_t (*op_run)(const struct fd_op *op, const struct fd_pass *pass, int64_t task);   /* -1, or a row that is not finite */
};
const struct fd_kernels *fd_selected_kernels(void);
