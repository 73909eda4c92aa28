/* threads_main.c - the pool under the thread sanitizer: many stages and tasks, two callers, changing thread counts, forks, other levels.
 *
 * Plain memory carries each stage's results to the next ones and to the caller, so a missing barrier is a race that the
 * sanitizer sees and a wrong number that the program sees.  Prints the failures of each round; exit status 1 if there were any.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#endif
#include "base.h"
#include "platform.h"
#include "threads.h"

enum { STAGES = 40, TASKS = 37, JOBS = 40, ROUNDS = 5 };

struct table { int64_t rows[STAGES + 2][TASKS]; };       /* a stage sums two rows into the next */

static int64_t tasks_of(void *context, int64_t stage)    /* shared by all, one thread's, nobody's, a few */
{
    static const int64_t sizes[] = {TASKS, 1, 0, 5};
    (void)context;
    return sizes[stage % 4];
}
static void run_task(void *context, int64_t stage, int64_t task)
{
    struct table *t = context;
    int64_t sum = stage + task;
    for (int i = 0; i < TASKS; i++) sum += t->rows[stage][i] + t->rows[stage + 1][i];
    t->rows[stage + 2][task] = sum % 1000003;
}

struct calls { int stages, failures; };                  /* failures: how many jobs went wrong */
static fd_thread_result FD_THREAD_CALL caller(void *argument)
{
    static const int counts[] = {2, 4, 1, 3, 8, 64, 1000};
    struct calls *calls = argument;
    int64_t stages = calls->stages;
    for (int job = 0; job < JOBS; job++) {
        struct table want = {{{1, 2, 3}}}, got = want;
        fd_run_stages(1, stages - job % 3, tasks_of, run_task, NULL, &want);
        fd_run_stages(counts[job % 7], stages - job % 3, tasks_of, run_task, NULL, &got);
        calls->failures += memcmp(&want, &got, sizeof want) != 0;
        for (int level = 0; level < fd_isa_count(); level++) if (fd_isa_supported(level)) fd_isa_select(level);
    }
    return 0;
}
static int call(void)
{
    struct calls calls = {STAGES, 0};
    caller(&calls);
    return calls.failures;
}

#if defined(_WIN32)
static int forked_caller(void) { return 0; }
#else
static int forked_caller(void)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(call());
    return waitpid(child, &status, 0) != child || status != 0;
}
#endif

/* Two threads, four tasks: 0 and 1 are the caller's, 2 and 3 the worker's.  Whoever takes one of the first pair waits until one
 * of the second has begun, and the other way round: a sleeping worker has to be woken.  Then task 2 waits for task 3: the other
 * thread has to take what is left of a share.  Seconds later they give up. */
struct meeting { _Atomic int begun[4], alone; _Atomic int64_t steps[2]; };

static int64_t four(void *context, int64_t stage) { (void)context; (void)stage; return 4; }
static void await(struct meeting *m, int first, int second)
{
    for (int turns = 0; !m->begun[first] && !m->begun[second]; turns++) {
        if (turns == 5000) { m->alone = 1; return; }
        usleep(1000);
    }
}
static void meet(void *context, int64_t stage, int64_t task)
{
    struct meeting *m = context;
    (void)stage;
    m->begun[task] = 1;
    if (task < 2) await(m, 2, 3);
    else await(m, 0, 1);
    if (task == 2) await(m, 3, 3);
}
static int step(void *context, int64_t stage, int thread, int threads, int64_t step)     /* in sequence, until it says no */
{
    struct meeting *m = context;
    (void)stage;
    if (thread < 0 || thread >= threads || m->steps[thread] != step || step > 9) m->alone = 1;
    m->steps[thread] = step < 9 ? step + 1 : 0;
    return step < 9;
}
static int meetings(void)
{
    struct meeting m = {{0}, 0, {0}};
    usleep(100000);                                      /* the worker falls asleep */
    fd_run_stages(2, 1, four, meet, step, &m);
    return m.alone;
}

int main(void)
{
    int failures = meetings();
    printf("two threads %s\n", failures ? "did not meet" : "met");
    failures += meetings();                              /* a worker that sleeps, where the first one was new */
    for (int round = 0; round < ROUNDS; round++) {
        fd_thread callers[2];
        struct calls calls[2] = {{STAGES, 0}, {STAGES - 8, 0}};
        for (int i = 0; i < 2; i++) if (!fd_thread_start(&callers[i], 1 << 20, caller, &calls[i])) return 2;
        int during = forked_caller();                    /* while others use the pool */
        for (int i = 0; i < 2; i++) { fd_thread_join(callers[i]); failures += calls[i].failures; }
        int between = forked_caller();                   /* workers asleep, nobody else in the pool */
        failures += call();
        printf("round %d: %d wrong in threads, %d and %d children failed\n", round, failures, during, between);
        failures += during + between;
    }
    return failures != 0;
}
