/* float_mode.h - rounding and denormals as IEEE 754 has them, whatever another library has set in this thread. */
#pragma once
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
static inline unsigned fd_float_mode_enter(void)
{
    unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return mode;
}
static inline void fd_float_mode_leave(unsigned mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
static inline unsigned fd_float_mode_enter(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return (unsigned)mode;
}
static inline void fd_float_mode_leave(unsigned mode) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode)); }
#elif defined(__arm__) && defined(__ARM_FP)
static inline unsigned fd_float_mode_enter(void)
{
    unsigned mode;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(mode));
    __asm__ volatile("vmsr fpscr, %0" : : "r"(0));
    return mode;
}
static inline void fd_float_mode_leave(unsigned mode) { __asm__ volatile("vmsr fpscr, %0" : : "r"(mode)); }
#else
static inline unsigned fd_float_mode_enter(void) { return 0; }
static inline void fd_float_mode_leave(unsigned mode) { (void)mode; }
#endif

/* The only way from Python to a kernel: whatever mode the caller is in comes back afterwards. */
static inline void fd_leave_ieee_mode(const unsigned *mode) { fd_float_mode_leave(*mode); }
#define FD_IEEE(call) __extension__ ({ \
    __attribute__((cleanup(fd_leave_ieee_mode), unused)) const unsigned callers_mode = fd_float_mode_enter(); \
    call; \
})
