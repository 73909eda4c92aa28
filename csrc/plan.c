/* plan.c - runs a whole forward pass: the pool is entered once.
 *
 * A stage is one op, or several that follow one another and treat each row on its own: a task then takes one row through
 * all of them, and no thread waits between them.
 */
#include "internal.h"

struct forward {
    const struct fd_kernels *kernels;
    const struct fd_op *ops;
    const int64_t *stages;               /* stage s is ops stages[s] .. stages[s + 1] */
    const struct fd_pass *pass;
    _Atomic int64_t bad_op;              /* the first op that met a row that is not finite, or INT64_MAX */
    _Atomic int64_t bad_row;
};

static int64_t forward_tasks(void *context, int64_t stage)
{
    const struct forward *f = context;
    return f->kernels->op_tasks(f->ops + f->stages[stage], f->pass);
}
static void forward_run(void *context, int64_t stage, int64_t task)
{
    struct forward *f = context;
    for (int64_t op = f->stages[stage]; op < f->stages[stage + 1]; op++) {
        int64_t row = f->kernels->op_run(f->ops + op, f->pass, task);
        if (row < 0 || atomic_load(&f->bad_op) <= op) continue;
        atomic_store(&f->bad_op, op);
        atomic_store(&f->bad_row, row);
    }
}

int fd_forward(const struct fd_op *ops, const int64_t *stages, int64_t count, const struct fd_pass *pass, int threads, int64_t *where)
{
    struct forward f = {fd_kernels, ops, stages, pass, INT64_MAX, 0};
    fd_run_stages(threads, count, forward_tasks, forward_run, &f);
    where[0] = atomic_load(&f.bad_op);
    where[1] = atomic_load(&f.bad_row);
    return where[0] == INT64_MAX ? FD_OK : FD_NOT_FINITE;
}

int64_t fd_statistics_floats(int64_t vocab) { return fd_ceil(vocab, FD_CHUNK) * FD_PARTIAL; }
int64_t fd_attention_floats(int64_t heads, int64_t head_dim, int64_t tiles)
{
    return FD_SPLIT_ROWS * heads * tiles * (fd_pad(head_dim, FD_LANES) + FD_LANES);
}
int64_t fd_attention_tiles(int64_t keys) { return fd_ceil(keys, FD_KEY_TILE); }
