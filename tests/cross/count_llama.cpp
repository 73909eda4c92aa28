/* count_llama.cpp - what the plugin count_instructions.c counts of llama.cpp's kernels, on the shapes of count_main.c: a line is
 *
 *     LEVEL kernel rows divisor instructions
 *
 * Built within an unpacked source tree of llama.cpp, for one level (a string, LEVEL).  Their weights and rows are zeros, for these kernels
 * take no branch on them.  What is counted are the calls that one matrix product or one query's attention makes, as their graph makes
 * them, without quantising rows, without the softmax and without the graph.
 */
#include <cstdlib>
#include "count_region.h"
#include "ggml-cpu-impl.h"
#include "quants.h"
#include "repack.h"
#include "vec.h"

enum { INPUTS = 576, OUTPUTS = 1536, BLOCKS = INPUTS / 32, KEYS = 512, HEAD = 64, UNIT = 512 };
enum { Q4_BYTES = 18, Q8_BYTES = 34, HALF = 2 };         /* of a block's weights, of a block of a row; of a number */

static void *const x = std::calloc(OUTPUTS * BLOCKS, Q8_BYTES);          /* weights, */
static char *const y = (char *)std::calloc(32 * BLOCKS, Q8_BYTES);       /* rows */
static float *const out = (float *)std::calloc(32 * OUTPUTS, sizeof(float));

static void begin(const char *kernel, int rows) { COUNT_BEGIN("%s %s %d %d", LEVEL, kernel, rows, rows * BLOCKS * OUTPUTS / 16); }

/* Each output and row by a call; with i8mm, two of each. */
typedef void vec_dot(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc);
static void count_vec_dot(const char *kernel, vec_dot *dot, size_t block_bytes)
{
    for (int rows : {1, 4, 8, 32}) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
        const int together = rows > 1 ? 2 : 1;
#else
        const int together = 1;
#endif
        begin(kernel, rows);
        for (int row = 0; row < rows; row += together)
            for (int output = 0; output < OUTPUTS; output += together)
                dot(INPUTS, out + row * OUTPUTS + output, OUTPUTS, (char *)x + output * BLOCKS * block_bytes, BLOCKS * block_bytes,
                    y + row * BLOCKS * Q8_BYTES, BLOCKS * Q8_BYTES, together);
        COUNT_END();
    }
}

/* Weights repacked: one row by gemv, fours of rows by gemm. */
typedef void product(int n, float *s, size_t bs, const void *x, const void *y, int rows, int outputs);
static void count_repacked(const char *kernel, product *gemv, product *gemm)
{
    for (int rows : {1, 4, 8, 32}) {
        begin(kernel, rows);
        (rows == 1 ? gemv : gemm)(INPUTS, out, OUTPUTS, x, y, rows, OUTPUTS);
        COUNT_END();
    }
}

#if defined(__ARM_FEATURE_SVE)
#include <arm_sve.h>
int ggml_cpu_get_sve_cnt(void) { return (int)svcntb(); }             /* theirs is in a file that is not built here */
#endif

int main()
{
    count_vec_dot("q4_0_vec_dot", ggml_vec_dot_q4_0_q8_0, Q4_BYTES);
    count_vec_dot("q8_0_vec_dot", ggml_vec_dot_q8_0_q8_0, Q8_BYTES);
#if defined(__ARM_FEATURE_DOTPROD)
    count_repacked("q4_0_4x4", ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0);
    count_repacked("q8_0_4x4", ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0);
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
    count_repacked("q4_0_4x8", ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x8_q8_0);
    count_repacked("q8_0_4x8", ggml_gemv_q8_0_4x8_q8_0, ggml_gemm_q8_0_4x8_q8_0);
#endif
#if defined(__ARM_FEATURE_SVE)
    count_repacked("q4_0_8x8", ggml_gemv_q4_0_8x8_q8_0, ggml_gemm_q4_0_8x8_q8_0);
#endif
    ggml_fp16_t *sum = (ggml_fp16_t *)y, *keys = (ggml_fp16_t *)x;
    COUNT_BEGIN("%s attention 1 %d", LEVEL, KEYS * HEAD * 2 / UNIT);
    for (int key = 0; key < KEYS; key++) {
        ggml_vec_dot_f16(HEAD, out, 0, keys + key * HEAD, 0, (ggml_fp16_t *)y, 0, 1);
        ggml_vec_mad_f16(HEAD, sum, keys + key * HEAD, *out);
    }
    COUNT_END();
    return 0;
}
