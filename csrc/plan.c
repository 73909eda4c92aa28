/* plan.c - runs a whole forward pass: the pool is entered once.
 *
 * A stage is one op, or several that follow one another and treat each row on its own: a task then takes one row through
 * all of them, and no thread waits between them.
 *
 * With a clock, whoever comes to a stage first writes down when: the stage before has ended then.
 */
#include "base.h"
#include "levels.h"
#include "threads.h"
#include "kernels/forward/packed.h"

struct forward {
    const struct fd_kernels *kernels;
    const struct fd_op *ops;
    int64_t count;
    const int64_t *stages;               /* stage s is ops stages[s] .. stages[s + 1] */
    const struct fd_pass *pass;
    _Atomic int64_t *clock;              /* (count + 1,) or NULL */
    _Atomic int64_t bad;                 /* op << 32 | row of the first op and row that are not finite, or INT64_MAX */
};

static void clock_stamp(_Atomic int64_t *at)
{
    int64_t unset = 0;
    if (atomic_load_explicit(at, memory_order_relaxed)) return;
    atomic_compare_exchange_strong(at, &unset, fd_nanoseconds());
}

static int64_t forward_tasks(void *context, int64_t stage)
{
    const struct forward *f = context;
    if (f->clock) clock_stamp(f->clock + stage);
    return f->kernels->op_tasks(f->ops + f->stages[stage], f->pass);
}
/* While a thread waits it fetches the first weights of its share of the next linear: they are what memory will be asked next. */
static int forward_ahead(void *context, int64_t stage, int thread, int threads, int64_t step)
{
    const struct forward *f = context;
    for (int64_t next = stage + 1; next < f->count; next++) {
        const struct fd_op *op = f->ops + f->stages[next];
        if (op->kind != FD_OP_linear && op->kind != FD_OP_head) continue;
        return f->kernels->op_ahead(op, fd_share(f->kernels->op_tasks(op, f->pass), thread, threads), step);
    }
    return 0;
}
static void forward_run(void *context, int64_t stage, int64_t task)
{
    struct forward *f = context;
    for (int64_t op = f->stages[stage]; op < f->stages[stage + 1]; op++) {
        int64_t row = f->kernels->op_run(f->ops + op, f->pass, task);
        int64_t found = op << 32 | row, least = atomic_load(&f->bad);
        while (row >= 0 && found < least && !atomic_compare_exchange_weak(&f->bad, &least, found)) continue;
    }
}

static int forward_reads(const struct forward *f)                        /* whether the level reads all weights as they lie */
{
    for (const struct fd_op *op = f->ops; op < f->ops + f->stages[f->count]; op++)
        for (int part = 0; part < op->parts; part++)
            if (!packed_for(f->kernels->layout, op->weights[part])) return 0;
    return 1;
}

int fd_forward(const struct fd_op *ops, const int64_t *stages, int64_t count, const struct fd_pass *pass, int threads,
               int64_t *where, int64_t *clock)
{
    struct forward f = {fd_selected_kernels(), ops, count, stages, pass, (_Atomic int64_t *)clock, INT64_MAX};
    if (!forward_reads(&f)) return FD_OTHER_LAYOUT;
    for (int64_t stage = 0; clock && stage <= count; stage++) clock[stage] = 0;
    fd_run_stages(threads, count, forward_tasks, forward_run, forward_ahead, &f);
    if (clock) clock_stamp(f.clock + count);
    int64_t bad = atomic_load(&f.bad);
    where[0] = bad >> 32;
    where[1] = bad & 0xffffffff;
    return bad == INT64_MAX ? FD_OK : FD_NOT_FINITE;
}
