/* emulate_avx512.h - the AVX-512 intrinsics of vec_avx512.h for a CPU that has AVX2, FMA and F16C only; isa_avx512.c includes it
 * when FD_EMULATE_AVX512 is defined.
 *
 * SIMDe gives most of them, floats as 256-bit halves: a multiply-add is the CPU's own and rounds once.  The ones that its
 * release 0.7.4 lacks follow, as the 256-bit instruction on each half.  An intrinsic that neither gives does not compile: what
 * is left of it in immintrin.h asks for AVX-512.
 */
#if defined(__clang__) || !defined(__OPTIMIZE__)
#error "needs gcc -O1 or better: SIMDe asks __AVX2__ (clang defines it for whole files only), and -O0 makes macros of intrinsics"
#endif
#pragma GCC target("avx2,fma,f16c")
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <immintrin.h>
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#if !defined(SIMDE_X86_AVX2_NATIVE) || !defined(SIMDE_X86_FMA_NATIVE) || defined(SIMDE_X86_AVX512F_NATIVE)
#error "SIMDe must see AVX2 and FMA, and no AVX-512"
#endif

static inline __m256 emulated_ps(__m512 x, int half) { return simde__m512_to_private(x).m256[half]; }
static inline __m256i emulated_epi32(__m512i x, int half) { return simde__m512i_to_private(x).m256i[half]; }
static inline __m512 emulated_join_ps(__m256 low, __m256 high)
{
    simde__m512_private r;
    r.m256[0] = low;
    r.m256[1] = high;
    return simde__m512_from_private(r);
}
static inline __m512i emulated_join_epi32(__m256i low, __m256i high)
{
    simde__m512i_private r;
    r.m256i[0] = low;
    r.m256i[1] = high;
    return simde__m512i_from_private(r);
}
static inline __m512d emulated_join_pd(__m256d low, __m256d high)
{
    simde__m512d_private r;
    r.m256d[0] = low;
    r.m256d[1] = high;
    return simde__m512d_from_private(r);
}
static inline __m256d emulated_pd(__m512d x, int half) { return simde__m512d_to_private(x).m256d[half]; }
static inline __m128i emulated_words(__m256i x, int half) { return half ? _mm256_extracti128_si256(x, 1) : _mm256_castsi256_si128(x); }

#define _mm512_extractf32x8_ps(x, half) emulated_ps(x, half)
#define _mm512_cvtepi32_ps(x) emulated_join_ps(_mm256_cvtepi32_ps(emulated_epi32(x, 0)), _mm256_cvtepi32_ps(emulated_epi32(x, 1)))
#define _mm512_cvtps_epi32(x) emulated_join_epi32(_mm256_cvtps_epi32(emulated_ps(x, 0)), _mm256_cvtps_epi32(emulated_ps(x, 1)))
#define _mm512_cvtps_pd(x) emulated_join_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)))
#define _mm512_cvtpd_ps(x) _mm256_set_m128(_mm256_cvtpd_ps(emulated_pd(x, 1)), _mm256_cvtpd_ps(emulated_pd(x, 0)))
#define _mm512_cvtph_ps(x) emulated_join_ps(_mm256_cvtph_ps(emulated_words(x, 0)), _mm256_cvtph_ps(emulated_words(x, 1)))
#define _mm512_cvtps_ph(x, rounding) \
    _mm256_set_m128i(_mm256_cvtps_ph(emulated_ps(x, 1), rounding), _mm256_cvtps_ph(emulated_ps(x, 0), rounding))
#define _mm512_cvtepu16_epi32(x) \
    emulated_join_epi32(_mm256_cvtepu16_epi32(emulated_words(x, 0)), _mm256_cvtepu16_epi32(emulated_words(x, 1)))
static inline __m128 emulated_quarter(__m512 x, int quarter) { return simde__m512_to_private(x).m128[quarter]; }
#define _mm512_shuffle_f32x4(a, b, from) \
    emulated_join_ps(_mm256_set_m128(emulated_quarter(a, (from) >> 2 & 3), emulated_quarter(a, (from) & 3)), \
                     _mm256_set_m128(emulated_quarter(b, (from) >> 6 & 3), emulated_quarter(b, (from) >> 4 & 3)))
