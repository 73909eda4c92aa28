/* threads.c - the pool: entered once for a whole list of stages, the caller works too.
 *
 * A stage's tasks are dealt out in shares, one a thread, of tasks in sequence: what a thread reads is one stream.  Each share
 * has a counter; a thread takes tasks from its own share until there are none, then from the others'.  `done` counts the
 * finished ones; a thread goes on to the next stage when done = tasks.  So nobody waits for a thread, only for claimed work: a
 * core that is taken away between two tasks delays nobody, and a worker that wakes late runs through the finished stages and
 * helps with what is left.  A thread that has to wait asks the job for something useful (`ahead`).
 *
 * The gate is one word { generation, workers wanted, open, workers inside }.  A worker enters an open gate of a new
 * generation; the caller shuts it when the last stage is done and waits for those inside.  A second caller that finds the
 * pool taken runs its job alone.  Workers are joined before fork and started again when needed.
 */
#include <string.h>
#include "base.h"
#include "float_mode.h"
#include "platform.h"
#include "threads.h"
#if defined(__x86_64__)
#include <immintrin.h>
#define FD_PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define FD_PAUSE() __asm__ volatile("yield")
#else
#define FD_PAUSE() ((void)0)
#endif

enum { MOST_THREADS = 64, SPINS_BEFORE_YIELD = 20000, SPINS_BEFORE_SLEEP = 40000, LINE = 64 };
enum { WORKER_STACK = 1 << 20 };                     /* bytes: tasks have 120 KB of blocks there, and musl gives 128 */
#define GATE_INSIDE 0xffu                            /* bits 0..7 */
#define GATE_OPEN 0x100u
#define GATE_WANTED(gate) ((gate) >> 16 & 0xffu)
#define GATE_GENERATION(gate) ((gate) >> 32)

struct job {
    int64_t stages;
    fd_stage_tasks_fn *tasks;
    fd_stage_fn *run;
    fd_stage_ahead_fn *ahead;
    void *context;
    int threads;
    int64_t stride;                                  /* counters from stage to stage: whole cache lines */
    _Atomic int64_t *counters;                       /* of a stage: done, then the next task of each share */
};

static struct {
    fd_mutex owner, sleep;                           /* owner: the caller whose job runs; sleep: guards the condition */
    fd_condition wake;
    _Atomic uint64_t gate;
    _Atomic int left, sleepers, stop;
    int workers, hooked;
    fd_thread threads[MOST_THREADS];
    struct job job;
    _Atomic int64_t *counters;
    size_t counters_bytes;
} pool = {.owner = FD_MUTEX, .sleep = FD_MUTEX, .wake = FD_CONDITION};

int fd_threads_limit(void) { return MOST_THREADS; }

static void run_alone(const struct job *job)
{
    for (int64_t stage = 0; stage < job->stages; stage++)
        for (int64_t task = 0, tasks = job->tasks(job->context, stage); task < tasks; task++) job->run(job->context, stage, task);
}

static void work(const struct job *job, int thread)
{
    for (int64_t stage = 0; stage < job->stages; stage++) {
        _Atomic int64_t *done = job->counters + stage * job->stride, *next = done + 1;
        int64_t tasks = job->tasks(job->context, stage);
        int64_t finished = 0, task;
        if (tasks == 0) continue;
        for (int turn = 0; turn < job->threads; turn++) {
            int share = (thread + turn) % job->threads;
            int64_t begin = fd_share(tasks, share, job->threads), size = fd_share(tasks, share + 1, job->threads) - begin;
            while (atomic_load_explicit(next + share, memory_order_relaxed) < size
                   && (task = atomic_fetch_add_explicit(next + share, 1, memory_order_relaxed)) < size) {
                job->run(job->context, stage, begin + task);
                finished++;
            }
        }
        if (finished) atomic_fetch_add_explicit(done, finished, memory_order_release);
        int useful = job->ahead != NULL;
        for (int spins = 0; atomic_load_explicit(done, memory_order_acquire) < tasks; spins++) {
            if (useful) useful = job->ahead(job->context, stage, thread, job->threads, spins);
            else FD_PAUSE();
            if (spins > SPINS_BEFORE_YIELD) fd_yield();
        }
    }
}

static int gate_calls(uint64_t gate, uint64_t seen) { return (gate & GATE_OPEN) && GATE_GENERATION(gate) != seen; }

static fd_thread_result FD_THREAD_CALL worker(void *argument)
{
    uint64_t index = (uint64_t)(uintptr_t)argument, seen = 0;
    for (;;) {
        uint64_t gate = atomic_load(&pool.gate);
        for (int spins = 0; !gate_calls(gate, seen) && spins < SPINS_BEFORE_SLEEP && !atomic_load(&pool.stop); spins++) {
            FD_PAUSE();
            gate = atomic_load(&pool.gate);
        }
        if (!gate_calls(gate, seen)) {
            fd_mutex_lock(&pool.sleep);
            atomic_fetch_add(&pool.sleepers, 1);
            while (!gate_calls(gate = atomic_load(&pool.gate), seen) && !atomic_load(&pool.stop)) fd_condition_wait(&pool.wake, &pool.sleep);
            atomic_fetch_sub(&pool.sleepers, 1);
            fd_mutex_unlock(&pool.sleep);
        }
        if (atomic_load(&pool.stop)) return 0;
        if (index >= GATE_WANTED(gate)) { seen = GATE_GENERATION(gate); continue; }
        if (!atomic_compare_exchange_strong(&pool.gate, &gate, gate + 1)) continue;      /* shut, or another one entered */
        seen = GATE_GENERATION(gate);
        unsigned mode = fd_float_mode_enter();
        work(&pool.job, (int)index + 1);
        fd_float_mode_leave(mode);
        atomic_fetch_add(&pool.left, 1);
    }
}

static void wake_sleepers(void)
{
    if (atomic_load(&pool.sleepers) == 0) return;
    fd_mutex_lock(&pool.sleep);
    fd_condition_broadcast(&pool.wake);
    fd_mutex_unlock(&pool.sleep);
}

static void before_fork(void)
{
    fd_mutex_lock(&pool.owner);
    fd_mutex_lock(&pool.sleep);
    atomic_store(&pool.stop, 1);
    fd_condition_broadcast(&pool.wake);
    fd_mutex_unlock(&pool.sleep);
    for (int i = 0; i < pool.workers; i++) fd_thread_join(pool.threads[i]);
    pool.workers = 0;
    atomic_store(&pool.stop, 0);
}
static void after_fork(void) { fd_mutex_unlock(&pool.owner); }

static void start_workers(int wanted)                /* fewer may come: the caller works on in any case */
{
    if (!pool.hooked) pool.hooked = fd_at_fork(before_fork, after_fork);
    if (!pool.hooked) return;
    while (pool.workers < wanted && fd_thread_start(&pool.threads[pool.workers], WORKER_STACK, worker, (void *)(uintptr_t)pool.workers))
        pool.workers++;
}

static int counters_ready(struct job *job)
{
    job->stride = fd_pad(1 + job->threads, LINE / sizeof *job->counters);
    size_t bytes = (size_t)(job->stages * job->stride) * sizeof *job->counters;
    if (bytes > pool.counters_bytes) {
        fd_free(pool.counters);
        pool.counters_bytes = 0;
        pool.counters = fd_malloc(bytes);
        if (!pool.counters) return 0;
        pool.counters_bytes = bytes;
    }
    memset(pool.counters, 0, bytes);
    job->counters = pool.counters;
    return 1;
}

void fd_run_stages(int threads, int64_t stages, fd_stage_tasks_fn *tasks, fd_stage_fn *run, fd_stage_ahead_fn *ahead, void *context)
{
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    struct job job = {stages, tasks, run, ahead, context, threads, 0, NULL};
    unsigned mode = fd_float_mode_enter();
    if (threads <= 1 || !fd_mutex_try(&pool.owner)) {
        run_alone(&job);
        fd_float_mode_leave(mode);
        return;
    }
    if (pool.workers < threads - 1) start_workers(threads - 1);
    if (pool.workers == 0 || !counters_ready(&job)) run_alone(&job);
    else {
        pool.job = job;
        atomic_store(&pool.left, 0);
        uint64_t generation = GATE_GENERATION(atomic_load(&pool.gate)) + 1;
        atomic_store(&pool.gate, generation << 32 | (uint64_t)(threads - 1) << 16 | GATE_OPEN);
        wake_sleepers();
        work(&job, 0);
        int inside = (int)(atomic_fetch_and(&pool.gate, ~(uint64_t)GATE_OPEN) & GATE_INSIDE);
        for (int spins = 0; atomic_load(&pool.left) < inside; spins++) {
            FD_PAUSE();
            if (spins > SPINS_BEFORE_YIELD) fd_yield();
        }
    }
    fd_mutex_unlock(&pool.owner);
    fd_float_mode_leave(mode);
}

struct range { int64_t items, grain; fd_range_fn *run; void *context; };
static int64_t range_tasks(void *context, int64_t stage)
{
    const struct range *r = context;
    (void)stage;
    return fd_ceil(r->items, r->grain);
}
static void range_run(void *context, int64_t stage, int64_t task)
{
    const struct range *r = context;
    (void)stage;
    r->run(r->context, task * r->grain, fd_min((task + 1) * r->grain, r->items));
}
void fd_parallel_for(int threads, int64_t items, int64_t grain, fd_range_fn *run, void *context)
{
    struct range r = {items, grain, run, context};
    fd_run_stages(threads, 1, range_tasks, range_run, NULL, &r);
}
