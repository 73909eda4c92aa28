/* ops.c - what each op of a forward pass does with one of its tasks. */
#pragma once
#include "../tile.h"
#include "attention.c"
#include "elementwise.c"
#include "head.c"
#include "linear.c"
#include "packed.h"
#include "rotary.c"

enum { FD_AHEAD = 64 };                  /* KiB of weights that a thread fetches while it waits: well inside a second-level cache */

static int64_t op_rows(const struct fd_op *op, const struct fd_pass *pass) { return op->read_rows ? pass->reads : pass->rows; }

static int64_t op_tasks(const struct fd_op *op, const struct fd_pass *pass)
{
    switch (op->kind) {
    case FD_OP_LINEAR: return op_linear_tasks(op);
    case FD_OP_ATTEND: return op_attend_tasks(op, pass);
    case FD_OP_ATTEND_MERGE: return op_attend_merge_tasks(op, pass);
    case FD_OP_HEAD: return pass->reads ? op_head_tasks(op) : 0;
    default: return op_rows(op, pass);
    }
}

static int64_t op_run(const struct fd_op *op, const struct fd_pass *pass, int64_t task)
{
    int finite = 1;
    switch (op->kind) {
    case FD_OP_EMBED: op_embed(op, pass, task); break;
    case FD_OP_RMS_NORM: finite = op_rms_norm(op, task); break;
    case FD_OP_QUANTIZE: finite = op_quantize(op, task); break;
    case FD_OP_LINEAR: op_linear(op, op_rows(op, pass), task); break;
    case FD_OP_ADD: op_add(op, task); break;
    case FD_OP_SILU_MUL: op_silu_mul(op, task); break;
    case FD_OP_ROTARY_TABLE: op_rotary_table(op, pass, task); break;
    case FD_OP_ROTARY: op_rotary(op, task); break;
    case FD_OP_STORE: finite = op_store(op, pass, task); break;
    case FD_OP_ATTEND: op_attend(op, pass, task); break;
    case FD_OP_ATTEND_MERGE: op_attend_merge(op, pass, task); break;
    case FD_OP_READ: op_copy(op, task, pass->read_rows[task]); break;
    case FD_OP_HEAD: op_head(op, pass, task); break;
    case FD_OP_HEAD_MERGE: finite = op_head_merge(op, pass, task); break;
    case FD_OP_COPY: op_copy(op, task, task); break;
    }
    return finite ? -1 : task;
}

/* Step by step, 4 KiB each, the beginning of what the task will read of its weights. */
static int op_ahead(const struct fd_op *op, int64_t task, int64_t step)
{
    int part = op->kind == FD_OP_LINEAR ? op_linear_part(op, &task) : 0;
    int64_t tile = task * (op->kind == FD_OP_LINEAR ? FD_TASK_TILES : FD_CHUNK / FD_LANES);
    const char *from = packed_tile(op->weights[part], tile) + step * 4096;
    for (int line = 0; line < 4096; line += 64) __builtin_prefetch(from + line, 0, 2);
    return step + 1 < FD_AHEAD / 4;
}
