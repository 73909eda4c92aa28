/* threads.h - the pool: how work is cut into tasks and run on threads. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

/* A stage is `tasks` independent pieces, fewer than 2^56; the next one starts when all are done. */
typedef void fd_stage_fn(void *context, int64_t stage, int64_t task);
typedef int64_t fd_stage_tasks_fn(void *context, int64_t stage);
/* Share `share` of a stage's tasks begins here. */
static inline int64_t fd_share(int64_t tasks, int64_t share, int64_t shares) { return tasks * share / shares; }
/* Called over and over, step 0, 1, ..., by a thread that waits for a stage to end; 0: there is nothing more to do. */
typedef int fd_stage_ahead_fn(void *context, int64_t stage, int thread, int threads, int64_t step);
void fd_run_stages(int threads, int64_t stages, fd_stage_tasks_fn *tasks, fd_stage_fn *run, fd_stage_ahead_fn *ahead, void *context);
/* One stage: cuts [0, items) into pieces of `grain`, a number fixed by shape. */
typedef void fd_range_fn(void *context, int64_t begin, int64_t end);
void fd_parallel_for(int threads, int64_t items, int64_t grain, fd_range_fn *run, void *context);
