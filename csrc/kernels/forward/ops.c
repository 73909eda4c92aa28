/* ops.c - the table of ops of a forward pass: how many tasks each one is, and what does one of them. */
#pragma once
#include "../tile.h"
#include "../train/activation_gradient.c"
#include "../train/attention_gradient.c"
#include "../train/elementwise_gradient.c"
#include "../train/experts_gradient.c"
#include "../train/linear_gradient.c"
#include "../train/norm_gradient.c"
#include "attention.c"
#include "elementwise.c"
#include "experts.c"
#include "head.c"
#include "linear.c"
#include "packed.h"
#include "rotary.c"

enum { FD_AHEAD = 64 };                  /* KiB of weights that a thread fetches while it waits: well inside a second-level cache */

struct op_kind {
    int64_t (*tasks)(const struct fd_op *op, const struct fd_pass *pass);
    int (*run)(const struct fd_op *op, const struct fd_pass *pass, int64_t task);        /* 0: its row is not finite */
};
static const struct op_kind op_kinds[] = {
#define FD_OP(name, tasks) [FD_OP_##name] = {tasks, op_##name},
#include "../../ops.h"
#undef FD_OP
};

static int64_t op_tasks(const struct fd_op *op, const struct fd_pass *pass) { return op_kinds[op->kind].tasks(op, pass); }
static int64_t op_run(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    return op_kinds[op->kind].run(op, pass, task) ? -1 : task;
}

/* Step by step, 4 KiB each, the beginning of what the task will read of its weights. */
static int op_ahead(const struct fd_op *op, int64_t task, int64_t step)
{
    int64_t row;
    int part = op->kind == FD_OP_linear ? op_linear_part(op, &task, &row) : 0;
    int64_t tile = task * (op->kind == FD_OP_linear ? FD_TASK_TILES : FD_CHUNK / FD_LANES);
    const char *from = packed_tile(op->weights[part], tile) + step * 4096;
    for (int line = 0; line < 4096; line += 64) __builtin_prefetch(from + line, 0, 2);
    return step + 1 < FD_AHEAD / 4;
}
