/* levels.c - which levels this CPU runs, and which one is selected. */
#include <stdio.h>
#include "base.h"
#include "levels.h"
#if defined(__x86_64__)
#include <cpuid.h>
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
#endif
static int always(void) { return 1; }

/* Worst first.  The place for neon and dotprod is here: their words in vec_neon.h. */
static const struct { const struct fd_kernels *kernels; int (*supported)(void); } levels[] = {
    {&fd_kernels_scalar, always},
#if defined(FD_TEST_LAYOUT)
    {&fd_kernels_scalar_pairs, always},
#endif
#if defined(__x86_64__)
    {&fd_kernels_avx2, has_avx2},
    {&fd_kernels_avx512, has_avx512},
#endif
};
static int selected;

int fd_isa_count(void) { return (int)(sizeof levels / sizeof *levels); }
const char *fd_isa_name(int level) { return levels[level].kernels->name; }
int fd_isa_supported(int level) { return levels[level].supported(); }
int fd_isa_layout(int level) { return levels[level].kernels->layout; }
int fd_isa_selected(void) { return selected; }
void fd_isa_select(int level) { selected = level; }
const struct fd_kernels *fd_selected_kernels(void) { return levels[selected].kernels; }

int fd_isa_shares_code(int level, int other)
{
    const struct fd_kernels *a = levels[level].kernels, *b = levels[other].kernels;
    return a->op_run == b->op_run || a->transport == b->transport || a->linear == b->linear || a->quantize_rows == b->quantize_rows
        || a->row_statistics == b->row_statistics || a->sample == b->sample;
}
int fd_kernel_name(int format, char *text, int size)
{
    const struct fd_kernels *level = fd_selected_kernels();
    return snprintf(text, (size_t)size, "%s (%s, %d x %d tile)", level->name, level->product[format], FD_LANES, level->row_tile);
}
