/* threads_main.c - the pool under the thread sanitizer: many stages and tasks, two callers, changing thread counts, forks.
 *
 * Plain memory carries each stage's results to the next ones and to the caller, so a missing barrier is a race that the
 * sanitizer sees and a wrong number that the program sees.  Prints the failures of each round; exit status 1 if there were any.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "internal.h"

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

static void *caller(void *argument)                      /* returns how many jobs went wrong */
{
    static const int counts[] = {2, 4, 1, 3, 8, 64, 1000};
    intptr_t failures = 0, stages = (intptr_t)argument;
    for (int job = 0; job < JOBS; job++) {
        struct table want = {{{1, 2, 3}}}, got = want;
        fd_run_stages(1, stages - job % 3, tasks_of, run_task, NULL, &want);
        fd_run_stages(counts[job % 7], stages - job % 3, tasks_of, run_task, NULL, &got);
        failures += memcmp(&want, &got, sizeof want) != 0;
    }
    return (void *)failures;
}

static intptr_t forked_caller(void)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(caller((void *)STAGES) != NULL);
    return waitpid(child, &status, 0) != child || status != 0;
}

int main(void)
{
    intptr_t failures = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t callers[2];
        void *result;
        for (intptr_t i = 0; i < 2; i++) pthread_create(&callers[i], NULL, caller, (void *)(STAGES - 8 * i));
        intptr_t during = forked_caller();               /* while others use the pool */
        for (int i = 0; i < 2; i++) { pthread_join(callers[i], &result); failures += (intptr_t)result; }
        intptr_t between = forked_caller();              /* workers asleep, nobody else in the pool */
        failures += (intptr_t)caller((void *)STAGES);
        printf("round %d: %d wrong in threads, %d and %d children failed\n", round, (int)failures, (int)during, (int)between);
        failures += during + between;
    }
    return failures != 0;
}
