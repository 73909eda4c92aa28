/* levels.c - which levels this CPU runs, and which one is selected. */
#include <stdatomic.h>
#include <stdio.h>
#include "base.h"
#include "levels.h"
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

extern const struct fd_kernels fd_kernels_scalar, fd_kernels_scalar_pairs;
#if defined(__x86_64__)
extern const struct fd_kernels fd_kernels_avx2, fd_kernels_avx512;

/* The operating system saves the registers that `mask` names (XCR0: 2 and 4 for AVX, 0xe0 more for AVX-512). */
static int os_saves(unsigned mask)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return (low & mask) == mask;
}
static int has_avx2(void)
{
    unsigned a, b, c, d, e, b7, f, g;
    const unsigned need = 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29;         /* FMA, OSXSAVE, AVX, F16C */
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need) != need || !os_saves(0x6)) return 0;
    return __get_cpuid_count(7, 0, &e, &b7, &f, &g) && (b7 & 1u << 5);
}
#if defined(FD_EMULATE_AVX512)
static int has_avx512(void) { return has_avx2(); }
#else
static int has_avx512(void)
{
    unsigned a, b, c, d;
    const unsigned need = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;         /* F, DQ, BW, VL */
    if (!has_avx2() || !os_saves(0xe6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return (b & need) == need && (c & 1u << 11);                             /* VNNI */
}
#endif
#elif defined(__aarch64__)
extern const struct fd_kernels fd_kernels_neon, fd_kernels_dotprod, fd_kernels_i8mm;

#if defined(__APPLE__)
static int has(const char *feature)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(feature, &value, &size, NULL, 0) == 0 && value;
}
static int has_dotprod(void) { return has("hw.optional.arm.FEAT_DotProd") && has("hw.optional.arm.FEAT_LSE"); }
static int has_i8mm(void) { return has_dotprod() && has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
/* Bits of AT_HWCAP and AT_HWCAP2.  The compiler is told ARMv8.2, of which it may use atomics and rounding products too. */
enum { ATOMICS = 1 << 8, ASIMDRDM = 1 << 12, ASIMDDP = 1 << 20, I8MM_2 = 1 << 13 };
static int has_dotprod(void) { return !(~getauxval(AT_HWCAP) & (ATOMICS | ASIMDRDM | ASIMDDP)); }
static int has_i8mm(void) { return has_dotprod() && (getauxval(AT_HWCAP2) & I8MM_2); }
#elif defined(_WIN32)
/* Of IsProcessorFeaturePresent, by number: older headers lack the last.  A CPU with dot products is one of ARMv8.1, with rounding products. */
enum { ATOMICS = 34, DOT_PRODUCT = 43, I8MM = 66 };
static int has_dotprod(void) { return IsProcessorFeaturePresent(ATOMICS) && IsProcessorFeaturePresent(DOT_PRODUCT); }
static int has_i8mm(void) { return has_dotprod() && IsProcessorFeaturePresent(I8MM); }
#else
static int has_dotprod(void) { return 0; }              /* not asked for here */
static int has_i8mm(void) { return 0; }
#endif
#endif
static int always(void) { return 1; }

/* Worst first. */
static const struct { const struct fd_kernels *kernels; int (*supported)(void); } levels[] = {
    {&fd_kernels_scalar, always},
#if defined(FD_TEST_LAYOUT)
    {&fd_kernels_scalar_pairs, always},
#endif
#if defined(__x86_64__)
    {&fd_kernels_avx2, has_avx2},
    {&fd_kernels_avx512, has_avx512},
#elif defined(__aarch64__)
    {&fd_kernels_neon, always},
    {&fd_kernels_dotprod, has_dotprod},
    {&fd_kernels_i8mm, has_i8mm},
#endif
};
static _Atomic int selected;                             /* by any thread; a job asks once, as it begins */

int fd_isa_count(void) { return (int)(sizeof levels / sizeof *levels); }
const char *fd_isa_name(int level) { return levels[level].kernels->name; }
int fd_isa_supported(int level) { return levels[level].supported(); }
int fd_isa_layout(int level) { return levels[level].kernels->layout; }
int fd_isa_selected(void) { return atomic_load_explicit(&selected, memory_order_relaxed); }
void fd_isa_select(int level) { atomic_store_explicit(&selected, level, memory_order_relaxed); }
const struct fd_kernels *fd_selected_kernels(void) { return levels[fd_isa_selected()].kernels; }

int fd_isa_shares_code(int level, int other)
{
    const struct fd_kernels *a = levels[level].kernels, *b = levels[other].kernels;
    return a->op_run == b->op_run || a->linear == b->linear || a->quantize_rows == b->quantize_rows
        || a->row_statistics == b->row_statistics || a->sample == b->sample;
}
int fd_kernel_name(int format, char *text, int size)
{
    const struct fd_kernels *level = fd_selected_kernels();
    return snprintf(text, (size_t)size, "%s (%s, %d x %d tile)", level->name, level->product[format], FD_LANES, level->row_tile);
}
