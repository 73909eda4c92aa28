/* platform.h - threads, locks and forks of the operating system; what else it is asked for is in platform.c and levels.c.
 *
 * POSIX; or Windows by its own calls, which need no library beside it.  The names are alike, and cost nothing.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef SRWLOCK fd_mutex;
typedef CONDITION_VARIABLE fd_condition;
typedef HANDLE fd_thread;
typedef DWORD fd_thread_result;                      /* of a thread's function, which returns 0 */
#define FD_MUTEX SRWLOCK_INIT
#define FD_CONDITION CONDITION_VARIABLE_INIT
#define FD_THREAD_CALL WINAPI

static inline void fd_mutex_lock(fd_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static inline int fd_mutex_try(fd_mutex *mutex) { return TryAcquireSRWLockExclusive(mutex); }
static inline void fd_mutex_unlock(fd_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
static inline void fd_condition_wait(fd_condition *wake, fd_mutex *mutex) { SleepConditionVariableSRW(wake, mutex, INFINITE, 0); }
static inline void fd_condition_broadcast(fd_condition *wake) { WakeAllConditionVariable(wake); }
static inline void fd_yield(void) { SwitchToThread(); }
static inline void fd_thread_join(fd_thread thread) { WaitForSingleObject(thread, INFINITE); CloseHandle(thread); }
static inline int fd_thread_start(fd_thread *thread, size_t stack, fd_thread_result (WINAPI *run)(void *), void *argument)
{
    *thread = CreateThread(NULL, stack, run, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return *thread != NULL;
}
static inline int fd_at_fork(void (*before)(void), void (*after)(void)) { (void)before, (void)after; return 1; }

#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>

typedef pthread_mutex_t fd_mutex;
typedef pthread_cond_t fd_condition;
typedef pthread_t fd_thread;
typedef void *fd_thread_result;
#define FD_MUTEX PTHREAD_MUTEX_INITIALIZER
#define FD_CONDITION PTHREAD_COND_INITIALIZER
#define FD_THREAD_CALL

static inline void fd_mutex_lock(fd_mutex *mutex) { pthread_mutex_lock(mutex); }
static inline int fd_mutex_try(fd_mutex *mutex) { return pthread_mutex_trylock(mutex) == 0; }
static inline void fd_mutex_unlock(fd_mutex *mutex) { pthread_mutex_unlock(mutex); }
static inline void fd_condition_wait(fd_condition *wake, fd_mutex *mutex) { pthread_cond_wait(wake, mutex); }
static inline void fd_condition_broadcast(fd_condition *wake) { pthread_cond_broadcast(wake); }
static inline void fd_yield(void) { sched_yield(); }
static inline void fd_thread_join(fd_thread thread) { pthread_join(thread, NULL); }
/* With so many bytes of stack, which are taken as they are used.  0: no thread has begun. */
static inline int fd_thread_start(fd_thread *thread, size_t stack, fd_thread_result (*run)(void *), void *argument)
{
    sigset_t all, old;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setstacksize(&attributes, stack);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);        /* signals go to Python's threads */
    int begun = pthread_create(thread, &attributes, run, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return begun;
}
/* From now on around each fork of this process; after: on both sides.  0: not so. */
static inline int fd_at_fork(void (*before)(void), void (*after)(void)) { return pthread_atfork(before, after, after) == 0; }
#endif
